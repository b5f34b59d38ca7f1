"""`POST /v1/messages`: one call from its bytes to its answer, streamed or whole.

Both ways run the same answer: a stream writes its events, a whole answer is their fold. The engine's block is open for
exactly as long as somebody waits for the answer. Any model name is served by the served model and echoed.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pensieve.api.events import MessageEvent
from pensieve.api.fold import MessageFold
from pensieve.api.request import MessagesRequest
from pensieve.api.values import new_id
from pensieve.engine.generation import Engine, Generation
from pensieve.errors import EngineError
from pensieve.models.served import ServedModel
from pensieve.prompt.render import ModelLimits, bounded_generation
from pensieve.reply.reply import Asked, Reply
from pensieve.server.boundary import LAST_WORD_S, exchange_of
from pensieve.server.calls import CallReader
from pensieve.server.disconnect import while_connected
from pensieve.server.errors import STOPPING, error_envelope
from pensieve.server.sse import EventWriter, Pace

# What a detokenizer needs to know of the prompt: where the answer's first word stands. Reading all of it would take
# the event loop 0.4 s for 250 000 tokens (2026-11-22, two-core Linux machine).
PRECEDING_TOKENS = 16

Emit = Callable[[list[MessageEvent]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Answer:
    """One call's answer, not begun yet: what the engine is asked, and what makes words of it."""

    generation: Generation
    reply: Reply

    async def run(self, engine: Engine, emit: Emit) -> None:
        """Generate, handing message events to `emit`; being cancelled or a stop sequence frees the engine's slot."""
        async with engine.generate(self.generation) as engine_events:
            async for event in engine_events:
                if message_events := self.reply.feed(event):
                    await emit(message_events)
                if self.reply.is_ended:
                    return
        raise EngineError("The engine ended an answer without its last event.")


class MessagesEndpoint:
    """The ASGI application behind the route."""

    def __init__(self, engine: Engine, model: ServedModel, calls: CallReader, pace: Pace) -> None:
        self._engine = engine
        self._model = model
        self._calls = calls
        self._pace = pace
        self._limits = ModelLimits(model.context_tokens, model.stop_tokens)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        call, prompt_tokens = await self._calls.read(Request(scope, receive), MessagesRequest)
        answer = self._answer(call, prompt_tokens)
        try:
            if call.stream:
                await self._stream(answer, scope, receive, send)
            else:
                await self._whole(answer, scope, receive, send)
        finally:
            exchange_of(scope).usage = answer.reply.usage

    def _answer(self, call: MessagesRequest, prompt_tokens: tuple[int, ...]) -> Answer:
        bounded = bounded_generation(call, prompt_tokens, self._limits)
        asked = Asked(
            message_id=new_id("msg"),
            model=call.model,
            prompt_tokens=len(prompt_tokens),
            stop_sequences=call.stop_sequences,
            length_stop=bounded.length_stop,
        )
        detokenizer = self._model.tokenizer.detokenizer(prompt_tokens[-PRECEDING_TOKENS:])
        return Answer(bounded.generation, Reply(asked, detokenizer))

    async def _whole(self, answer: Answer, scope: Scope, receive: Receive, send: Send) -> None:
        fold = MessageFold()

        async def take(events: list[MessageEvent]) -> None:
            for event in events:
                fold.feed(event)

        await while_connected(receive, partial(answer.run, self._engine, take))
        response = Response(fold.message.to_json(), media_type="application/json")
        await response(scope, receive, send)

    async def _stream(self, answer: Answer, scope: Scope, receive: Receive, send: Send) -> None:
        """Until the stream has begun an error is a status, the boundary's business; later it is an event."""
        writer = EventWriter(send, self._pace)
        work = partial(answer.run, self._engine, writer.begin_or_go_on)
        try:
            await while_connected(receive, work, beside=writer.ping_when_silent)
        except ClientDisconnect:
            raise
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(LAST_WORD_S, shield=True):
                await _break_off(writer, STOPPING, scope)
            raise
        except Exception as error:
            if not writer.has_begun:
                raise
            await _break_off(writer, error, scope)
        else:
            await writer.end()


async def _break_off(writer: EventWriter, error: Exception, scope: Scope) -> None:
    """End a stream that has begun with an `error` event."""
    if writer.has_begun:
        await writer.write([error_envelope(error, exchange_of(scope).request_id)])
        await writer.end()
