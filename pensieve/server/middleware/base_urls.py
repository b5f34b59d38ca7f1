"""Paths as clients make them out of a base URL: with /v1 twice, doubled slashes, a slash at the end.

Clients of one SDK want /v1 in the base URL, those of another put it there themselves. What can
only mean one operation is answered. Runs after access is decided, which goes by the path as sent.
"""

import re
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

_DOUBLED = re.compile(r"/+(?:v1/+)+(?=.)|/{2,}(?=[^/])")
# Their first segment after /v1.
_OPERATIONS = {"messages", "models", "files"}
_OF_OPENAI = {"completions", "responses", "embeddings"}


class BaseURLMiddleware:
    """ASGI middleware that hands on the path that was meant."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand one request on."""
        if scope["type"] == "http":
            scope = {**scope, "path": intended(scope["path"])}
        await self._app(scope, receive, send)


def intended(path: str) -> str:
    """Return the path without what a base URL adds: `//v1/v1/messages/` is `/v1/messages`.

    Slashes inside stay: a model's id can be the path of its folder.
    """
    if found := _DOUBLED.match(path):
        path = ("/v1/" if "v1" in found[0] else "/") + path[found.end() :]
    return path.rstrip("/") or "/"


def right_address(scope: Mapping[str, Any]) -> str:
    """Return a sentence that says where what was looked for is; empty where that is not known."""
    segments = scope["path"].strip("/").split("/")
    base = _base_url(scope)
    if _OPERATIONS & set(segments):
        name = next(segment for segment in segments if segment in _OPERATIONS)
        return f" It is at /v1/{name} here: the base URL for clients is {base}."
    if _OF_OPENAI & set(segments):
        return f" This server speaks the Anthropic API: POST /v1/messages, base URL {base}."
    return ""


def _base_url(scope: Mapping[str, Any]) -> str:
    """By the socket that was reached, never by a header."""
    host, port = scope.get("server") or ("127.0.0.1", None)
    named = f"[{host}]" if ":" in host else host
    return f"http://{named}" if port is None else f"http://{named}:{port}"
