"""From a request's bytes to the call and its prompt tokens, the same way for `messages` and `count_tokens`.

Parsing, rendering and tokenizing happen in a worker thread, the server's only crossing between threads: how long they
take is the tokenizer's secret, and the streams of other clients wait for nobody. The crossing costs about 0.1 ms.
"""

import logging
from functools import partial
from typing import TypeVar

import anyio.to_thread
from starlette.requests import Request

from pensieve.api.request import MAX_BODY_BYTES, Conversation, parse
from pensieve.errors import InvalidRequestError, RequestTooLargeError
from pensieve.models.served import ServedModel
from pensieve.prompt.render import PromptRenderer

_log = logging.getLogger("pensieve.server")

ConversationT = TypeVar("ConversationT", bound=Conversation)


class CallReader:
    """Reads calls for one served model."""

    def __init__(self, model: ServedModel) -> None:
        self._renderer = PromptRenderer(model.tokenizer)

    async def read(
        self, request: Request, kind: type[ConversationT]
    ) -> tuple[ConversationT, tuple[int, ...]]:
        """The call in the request's body and its prompt tokens.

        Raises `InvalidRequestError` and `RequestTooLargeError`.
        """
        body = await read_body(request)
        return await anyio.to_thread.run_sync(partial(self._decode, kind, body))

    def _decode(
        self, kind: type[ConversationT], body: bytes
    ) -> tuple[ConversationT, tuple[int, ...]]:
        call = parse(kind, body)
        if call.tools:
            _log.warning("the request's %d tools are left out: not supported yet", len(call.tools))
        return call, self._renderer.prompt_tokens(call)


async def read_body(request: Request) -> bytes:
    """The request's JSON, unread. A web page can send other content types without asking us; so none is taken."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise InvalidRequestError("content-type: Input should be 'application/json'")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise InvalidRequestError("content-encoding: only unencoded bodies are read")
    if _announced_bytes(request) > MAX_BODY_BYTES:
        raise _too_large()
    chunks = bytearray()
    async for chunk in request.stream():
        chunks += chunk
        if len(chunks) > MAX_BODY_BYTES:
            raise _too_large()
    return bytes(chunks)


def _announced_bytes(request: Request) -> int:
    announced = request.headers.get("content-length", "")
    return int(announced) if announced.isdecimal() and len(announced) < 20 else 0


def _too_large() -> RequestTooLargeError:
    return RequestTooLargeError("Request exceeds the maximum size")
