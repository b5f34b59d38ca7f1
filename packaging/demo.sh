#!/bin/sh
# Start a server with a small model, send it a question and stop it.
# A server that runs already gets the question and keeps running.
set -eu
cd "$(dirname "$0")/.."
pensieve=.venv/bin/pensieve
device="--device cpu"
[ "$(uname -sm)" = "Darwin arm64" ] && device=""

started_here=no
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
[ "$started_here" = no ] || "$pensieve" stop
cat <<END

Next:
  . .venv/bin/activate
  pensieve start --model smollm2-135m $device
  eval "\$(pensieve env)"        # any Anthropic client in this shell now talks to pensieve
  pensieve chat
END
