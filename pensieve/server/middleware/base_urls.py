"""ASGI middleware that corrects paths of wrong base URLs: /v1 twice, doubled or trailing slashes.

Some SDKs want /v1 in the base URL, others add it themselves. A path that can only mean one
operation is served. Runs after the access checks, which use the path as sent.
"""

import re
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

_DOUBLED = re.compile(r"/+(?:v1/+)+(?=.)|/{2,}(?=[^/])")
# First segments after /v1.
_OPERATIONS = {"messages", "models", "files"}
_OPENAI_OPERATIONS = {"completions", "responses", "embeddings"}


class BaseURLMiddleware:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "path": normalize_path(scope["path"])}
        await self._app(scope, receive, send)


def normalize_path(path: str) -> str:
    """Return the path without what a base URL adds: `//v1/v1/messages/` is `/v1/messages`.

    Inner slashes stay: a model's id can be the path of its folder.
    """
    if match := _DOUBLED.match(path):
        path = ("/v1/" if "v1" in match[0] else "/") + path[match.end() :]
    return path.rstrip("/") or "/"


def address_hint(scope: Mapping[str, Any]) -> str:
    """Return a sentence with the right address for an unknown path; empty if there is no guess."""
    segments = scope["path"].strip("/").split("/")
    base = _base_url(scope)
    if _OPERATIONS & set(segments):
        name = next(segment for segment in segments if segment in _OPERATIONS)
        return f" It is at /v1/{name} here: the base URL for clients is {base}."
    if _OPENAI_OPERATIONS & set(segments):
        return f" This server speaks the Anthropic API: POST /v1/messages, base URL {base}."
    return ""


def _base_url(scope: Mapping[str, Any]) -> str:
    """Built from the socket that was reached, never from a header."""
    host, port = scope.get("server") or ("127.0.0.1", None)
    authority = f"[{host}]" if ":" in host else host
    return f"http://{authority}" if port is None else f"http://{authority}:{port}"
