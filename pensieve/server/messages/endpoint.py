"""`POST /v1/messages`: one call from its bytes to its answer, streamed or whole."""

import logging

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from pensieve.api.messages.message import Message
from pensieve.api.messages.request import MessagesRequest
from pensieve.server.errors import PASSING, STOPPING, error_envelope, let_go
from pensieve.server.http.disconnect import abort_of, run_until_disconnect
from pensieve.server.http.json_response import json_response as answered
from pensieve.server.http.sse import EventWriter, PingInterval
from pensieve.server.messages.completion import Completer, Completion
from pensieve.server.messages.pipeline import RequestPipeline, is_claude_code, priority_of
from pensieve.server.messages.sessions import Sessions
from pensieve.server.messages.threads import Threads, ThreadTurn
from pensieve.server.middleware.request_context import LAST_WORD_S, exchange_of

_log = logging.getLogger("pensieve.server")


class MessagesEndpoint:
    """The ASGI application behind the route. Owns the message threads."""

    def __init__(
        self, answerer: Completer, calls: RequestPipeline, sessions: Sessions, pace: PingInterval
    ) -> None:
        self._answerer = answerer
        self._sessions = sessions
        self._calls = calls
        self._pace = pace
        self._threads = Threads()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        call, size_bytes = await self._calls.read(request, MessagesRequest)
        priority = priority_of(request.headers, call)
        with self._threads.turn(call, size_bytes) as turn:
            prompt = await self._calls.render(turn.call, kept=turn.kept)
            if priority != "side":  # titles and searches are no turns of their session
                self._sessions.note(request.headers, turn.call, prompt)
            answer = self._answerer.answer(turn.call, prompt, priority)
            try:
                if call.stream:
                    await self._stream(answer, turn, scope, receive, send)
                else:
                    await self._whole(answer, turn, scope, receive, send)
            finally:
                exchange_of(scope).usage = answer.reply.usage

    async def _whole(
        self, answer: Completion, turn: ThreadTurn, scope: Scope, receive: Receive, send: Send
    ) -> None:
        said: list[Message] = []

        async def work() -> None:
            said.append(await answer.run(keep=turn.keep))

        await run_until_disconnect(receive, work)
        await answered(said[0])(scope, receive, send)

    async def _stream(
        self, answer: Completion, turn: ThreadTurn, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Until the stream has begun an error is a status, the boundary's business; later it is an event."""
        writer = EventWriter(send, self._pace)

        async def work() -> None:
            await answer.run(writer.begin_or_go_on, keep=turn.keep)

        try:
            await run_until_disconnect(receive, work, beside=writer.ping_when_silent)
        except ClientDisconnect:
            raise
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(LAST_WORD_S, shield=True):
                await _break_off(writer, STOPPING, scope)
            raise
        except PASSING:
            raise
        except BaseException as error:
            if not writer.has_begun:
                raise
            await _break_off(writer, error, scope)
            let_go(error)
        else:
            await writer.end()


async def _break_off(writer: EventWriter, error: BaseException, scope: Scope) -> None:
    """End a stream that has begun: with an `error` event, or without a word where the client heals better from that."""
    if not writer.has_begun:
        return
    request_id = exchange_of(scope).request_id
    envelope = error_envelope(error, request_id)
    if is_claude_code(Request(scope).headers) and (cut := abort_of(scope)):
        _log.warning("%s is cut off, to be asked again: %s", request_id, envelope.error.message)
        cut()
        return
    await writer.write([envelope])
    await writer.end()
