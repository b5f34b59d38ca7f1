"""`POST /v1/messages`: reads one call and answers it, streamed or whole."""

import logging

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from pensieve.api.messages.message import Message
from pensieve.api.messages.request import MessagesRequest
from pensieve.server.errors import PASS_THROUGH, STOPPING, error_envelope, release_frames
from pensieve.server.http.disconnect import abort_of, run_until_disconnect
from pensieve.server.http.json_response import json_response
from pensieve.server.http.sse import EventWriter, PingInterval
from pensieve.server.messages.completion import Completer, Completion
from pensieve.server.messages.pipeline import RequestPipeline, is_claude_code, priority_of
from pensieve.server.messages.sessions import Sessions
from pensieve.server.messages.threads import Threads, ThreadTurn
from pensieve.server.middleware.request_context import FINAL_SEND_TIMEOUT_S, request_context_of

_log = logging.getLogger("pensieve.server")


class MessagesEndpoint:
    """The ASGI application of the route. Owns the message threads."""

    def __init__(
        self,
        completer: Completer,
        pipeline: RequestPipeline,
        sessions: Sessions,
        ping_interval: PingInterval,
    ) -> None:
        self._completer = completer
        self._sessions = sessions
        self._pipeline = pipeline
        self._ping_interval = ping_interval
        self._threads = Threads()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        call, size_bytes = await self._pipeline.read(request, MessagesRequest)
        priority = priority_of(request.headers, call)
        with self._threads.turn(call, size_bytes) as turn:
            prompt = await self._pipeline.render(turn.call, stored_turns=turn.stored_turns)
            if priority != "side":  # titles and searches are no turns of their session
                self._sessions.note(request.headers, turn.call, prompt)
            answer = self._completer.answer(turn.call, prompt, priority)
            try:
                if call.stream:
                    await self._stream(answer, turn, scope, receive, send)
                else:
                    await self._whole(answer, turn, scope, receive, send)
            finally:
                request_context_of(scope).usage = answer.reply.usage

    async def _whole(
        self, answer: Completion, turn: ThreadTurn, scope: Scope, receive: Receive, send: Send
    ) -> None:
        messages: list[Message] = []

        async def work() -> None:
            messages.append(await answer.run(on_answer=turn.on_answer))

        await run_until_disconnect(receive, work)
        await json_response(messages[0])(scope, receive, send)

    async def _stream(
        self, answer: Completion, turn: ThreadTurn, scope: Scope, receive: Receive, send: Send
    ) -> None:
        # An error before the stream begins is a status, which RequestMiddleware sends; later it is
        # an event.
        writer = EventWriter(send, self._ping_interval)

        async def work() -> None:
            await answer.run(writer.send, on_answer=turn.on_answer)

        try:
            await run_until_disconnect(receive, work, background=writer.ping_when_silent)
        except ClientDisconnect:
            raise
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(FINAL_SEND_TIMEOUT_S, shield=True):
                await _fail(writer, STOPPING, scope)
            raise
        except PASS_THROUGH:
            raise
        except BaseException as error:
            if not writer.has_begun:
                raise
            await _fail(writer, error, scope)
            release_frames(error)
        else:
            await writer.end()


async def _fail(writer: EventWriter, error: BaseException, scope: Scope) -> None:
    """End a stream that has begun with an `error` event.

    Abort the connection of Claude Code instead: it then retries the stream.
    """
    if not writer.has_begun:
        return
    request_id = request_context_of(scope).request_id
    envelope = error_envelope(error, request_id)
    if is_claude_code(Request(scope).headers) and (abort := abort_of(scope)):
        _log.warning(
            "%s failed in mid-stream, aborting the connection so that the client retries: %s",
            request_id,
            envelope.error.message,
        )
        abort()
        return
    await writer.write([envelope])
    await writer.end()
