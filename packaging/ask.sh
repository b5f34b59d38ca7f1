#!/bin/sh
# Asks the server on this machine for a stream and prints its events. usage: packaging/ask.sh MAX_TOKENS QUESTION
set -eu
body=$(printf '{"model": "local", "max_tokens": %s, "stream": true, "messages": [{"role": "user", "content": "%s"}]}' "$1" "$2")
curl --silent --show-error --no-buffer --max-time 300 "${SERVER:-http://127.0.0.1:7777}/v1/messages" \
    --header "x-api-key: ${PENSIEVE_API_KEY:-pensieve-local-key}" \
    --header "anthropic-version: 2023-06-01" --header "content-type: application/json" --data "$body"
