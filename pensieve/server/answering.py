"""From a call to its answer as message events, however they are delivered. The one place that asks the engine.

A stream writes the events, a whole answer is their fold. The engine's block is open for exactly as long as somebody
waits for the answer.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pensieve.api.batches import BatchedRequest
from pensieve.api.events import MessageEvent
from pensieve.api.fold import MessageFold
from pensieve.api.message import Message
from pensieve.api.request import MessagesRequest
from pensieve.api.values import new_id
from pensieve.engine.generation import Engine, Generation, Priority
from pensieve.errors import EngineError
from pensieve.models.served import ServedModel
from pensieve.prompt.generation import ModelLimits, bounded_generation
from pensieve.prompt.render import Prompt
from pensieve.reply.reply import Asked, Reply
from pensieve.server.calls import CallReader

# What a detokenizer needs to know of the prompt: where the answer's first word stands. Reading all of it would take
# the event loop 0.4 s for 250 000 tokens (2026-11-22, two-core Linux machine).
PRECEDING_TOKENS = 16

Emit = Callable[[list[MessageEvent]], Awaitable[None]]
Keep = Callable[[Message], None]


async def to_nobody(_: list[MessageEvent]) -> None:
    """For an answer whose events nobody waits for, only their fold."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One call's answer, not begun yet: what the engine is asked, and what makes words of it."""

    engine: Engine
    generation: Generation
    reply: Reply

    async def run(self, emit: Emit = to_nobody, *, keep: Keep | None = None) -> Message:
        """Generate, handing message events to `emit`; being cancelled or a stop sequence frees the engine's slot.

        keep: is given the whole message, just before its last events go out.
        """
        fold = MessageFold()
        async with self.engine.generate(self.generation) as engine_events:
            async for event in engine_events:
                message_events = self.reply.feed(event)
                for message_event in message_events:
                    fold.feed(message_event)
                if keep is not None and self.reply.is_ended:
                    keep(fold.message)
                if message_events:
                    await emit(message_events)
                if self.reply.is_ended:
                    return fold.message
        raise EngineError("The engine ended an answer without its last event.")


class Answerer:
    """Makes answers with one engine and one served model. Any model name is served by it and echoed."""

    def __init__(self, engine: Engine, model: ServedModel, calls: CallReader) -> None:
        self._engine = engine
        self._model = model
        self._calls = calls

    def answer(self, call: MessagesRequest, prompt: Prompt, priority: Priority = "main") -> Answer:
        """The answer to `call`, whose whole conversation is `prompt`. Raises `PromptTooLongError`."""
        bounded = bounded_generation(call, prompt, self._limits(), priority)
        asked = Asked(
            message_id=new_id("msg"),
            model=call.model,
            prompt_tokens=len(prompt.tokens),
            length_stop=bounded.length_stop,
            stop_sequences=call.stop_sequences,
            breakpoints=prompt.breakpoints,
            edits=prompt.edits,
            is_silent=call.max_tokens == 0,
        )
        detokenizer = self._model.tokenizer.detokenizer(prompt.tokens[-PRECEDING_TOKENS:])
        return Answer(self._engine, bounded.generation, Reply(asked, detokenizer))

    async def answer_batched(self, params: bytes) -> Message:
        """The whole answer to one request of a message batch. Raises what `POST /v1/messages` would answer with."""
        call = await self._calls.parse(BatchedRequest, params)
        prompt = await self._calls.render(call)
        return await self.answer(call, prompt, "batch").run()

    def _limits(self) -> ModelLimits:
        """Of the model, and of the memory that its engine found, once it has."""
        context_tokens = self._engine.health.context_of(self._model.context_tokens)
        return ModelLimits(context_tokens, self._model.stop_tokens)
