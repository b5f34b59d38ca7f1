#!/bin/sh
# Request a stream from the server on this machine and print its events.
# usage: packaging/ask.sh MAX_TOKENS QUESTION
set -eu
message=$(printf '{"role": "user", "content": "%s"}' "$2")
fields=$(printf '"model": "local", "max_tokens": %s, "stream": true' "$1")
body="{$fields, \"messages\": [$message]}"
url=${SERVER:-http://127.0.0.1:7777}/v1/messages
curl --silent --show-error --no-buffer --max-time 300 "$url" \
    --header "x-api-key: ${PENSIEVE_API_KEY:-pensieve-local-key}" \
    --header "anthropic-version: 2023-06-01" --header "content-type: application/json" \
    --data "$body"
