#!/bin/sh
# Start a server with a small model, send it a question and stop it.
# A server that runs already gets the question and keeps running; one that is started here stops
# again, after Ctrl-C and a failure too.
set -eu
cd "$(dirname "$0")/.."
pensieve=.venv/bin/pensieve
device="--device cpu"
[ "$(uname -sm)" = "Darwin arm64" ] && device=""

started_here=no
stop() {
    [ "$started_here" = no ] || "$pensieve" stop
    started_here=no
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
if ! "$pensieve" status >/dev/null 2>&1; then
    # shellcheck disable=SC2086 # no argument if the default device is right
    "$pensieve" start --model smollm2-135m $device
    started_here=yes
fi
question="What is the capital of France?"
printf '\n> %s\n\n' "$question"
# Greedy and short: so small a model rambles when it samples.
"$pensieve" chat --stats --temperature 0 --max-tokens 60 "$question" </dev/null
echo
stop
cat <<END

Next:
  . .venv/bin/activate
  pensieve start --model smollm2-135m $device
  eval "\$(pensieve env)"        # any Anthropic client in this shell now talks to pensieve
  pensieve chat
END
