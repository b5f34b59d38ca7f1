"""An MCP server over standard input and output, with one tool, for a client that starts it."""

import json
import sys
from typing import Any

LOOKUP = {
    "name": "lookup",
    "description": "Look a word up.",
    "inputSchema": {
        "type": "object",
        "properties": {"word": {"type": "string"}},
        "required": ["word"],
    },
}


def result_of(request: dict[str, Any]) -> dict[str, Any]:
    match request["method"]:
        case "initialize":
            version = request["params"]["protocolVersion"]
            info = {"name": "stub", "version": "1"}
            return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
        case "tools/list":
            return {"tools": [LOOKUP]}
        case "tools/call":
            return {"content": [{"type": "text", "text": "forty-two"}]}
        case _:
            return {}


for line in sys.stdin:
    message = json.loads(line)
    if "id" in message:
        answer = {"jsonrpc": "2.0", "id": message["id"], "result": result_of(message)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
