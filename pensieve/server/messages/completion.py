"""From a call to its answer as message events, however they are delivered. The one place that asks the engine.

A stream writes the events, a whole answer is their fold. The engine's block is open for exactly as long as somebody
waits for the answer.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from pensieve.api.base import new_id
from pensieve.api.batches import BatchedRequest
from pensieve.api.messages.accumulate import MessageAccumulator
from pensieve.api.messages.events import MessageEvent
from pensieve.api.messages.message import Message
from pensieve.api.messages.request import MessagesRequest
from pensieve.engine.generation import Engine, Generation, Grammar, Priority, Token
from pensieve.errors import EngineError, GrammarError
from pensieve.models.served_model import ServedModel
from pensieve.prompt.generation import ModelLimits, bounded_generation
from pensieve.prompt.render import Prompt
from pensieve.prompt.template.generated_answers import GeneratedAnswer
from pensieve.reply.reply import Reply, ReplyContext
from pensieve.server.messages.pipeline import RequestPipeline

_log = logging.getLogger("pensieve.server")

# What a detokenizer needs to know of the prompt: where the answer's first word stands. Reading all of it would take
# the event loop 0.4 s for 250 000 tokens (2026-11-22, two-core Linux machine).
PRECEDING_TOKENS = 16

Emit = Callable[[list[MessageEvent]], Awaitable[None]]
Keep = Callable[[Message], None]
Remember = Callable[[GeneratedAnswer], None]


async def to_nobody(_: list[MessageEvent]) -> None:
    """For an answer whose events nobody waits for, only their fold."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One call's answer, not begun yet: what the engine is asked, and what makes words of it.

    remember: takes the words as they are generated, where the prompt says what they go on from.
    """

    engine: Engine
    generation: Generation
    prompt: Prompt
    reply: Reply
    remember: Remember

    async def run(self, emit: Emit = to_nobody, *, keep: Keep | None = None) -> Message:
        """Generate, handing message events to `emit`; being cancelled or a stop sequence frees the engine's slot.

        keep: is given the whole message, just before its last events go out.
        """
        generation, grammar = self.generation, self.prompt.plan.grammar
        fold = MessageAccumulator()
        while True:
            try:
                return await self._generated(generation, fold, emit, keep)
            except GrammarError as error:
                if generation.grammar is None or self.reply.usage.output_tokens:
                    raise
                grammar = grammar and grammar.relaxed(error.message)
                if grammar is None:
                    _log.warning("an answer is not held to any grammar: %s", error.message)
                loosened = grammar and Grammar(grammar.lark)
                generation = replace(generation, grammar=loosened)

    async def _generated(
        self, generation: Generation, fold: MessageAccumulator, emit: Emit, keep: Keep | None
    ) -> Message:
        tokens: list[int] = []
        async with self.engine.generate(generation) as engine_events:
            async for event in engine_events:
                if isinstance(event, Token):
                    tokens.append(event.token_id)
                message_events = self.reply.feed(event)
                for message_event in message_events:
                    fold.feed(message_event)
                if self.reply.is_ended:
                    self._remember(fold.message, tokens)
                    if keep is not None:
                        keep(fold.message)
                if message_events:
                    await emit(message_events)
                if self.reply.is_ended:
                    return fold.message
        raise EngineError("The engine ended an answer without its last event.")

    def _remember(self, message: Message, tokens: list[int]) -> None:
        """Words behind a stop sequence were generated, and not said."""
        if self.prompt.opening is not None and message.stop_reason != "stop_sequence":
            self.remember(GeneratedAnswer(self.prompt.opening, tokens, message.content))


class Completer:
    """Makes answers with one engine and one served model. Any model name is served by it and echoed."""

    def __init__(
        self, engine: Engine, model: ServedModel, calls: RequestPipeline, remember: Remember
    ) -> None:
        self._engine = engine
        self._model = model
        self._calls = calls
        self._remember = remember
        self._marks = model.dialect.marks(model.tokenizer.controls)

    def answer(
        self, call: MessagesRequest, prompt: Prompt, priority: Priority = "main"
    ) -> Completion:
        """The answer to `call`, whose whole conversation is `prompt`. Raises `PromptTooLongError`."""
        bounded = bounded_generation(call, prompt, self._limits(), priority)
        asked = ReplyContext(
            message_id=new_id("msg"),
            model=call.model,
            prompt_tokens=len(prompt.tokens),
            length_stop=bounded.length_stop,
            form=prompt.plan.form,
            stop_sequences=call.stop_sequences,
            breakpoints=prompt.breakpoints,
            edits=prompt.edits,
            is_silent=call.max_tokens == 0,
            hides_thoughts=prompt.plan.hides_thoughts,
        )
        preceding = prompt.tokens[-PRECEDING_TOKENS:]
        reply = Reply(asked, self._model.tokenizer.detokenizer(preceding, self._marks))
        return Completion(self._engine, bounded.generation, prompt, reply, self._remember)

    async def answer_batched(self, params: bytes) -> Message:
        """The whole answer to one request of a message batch. Raises what `POST /v1/messages` would answer with."""
        call = await self._calls.parse(BatchedRequest, params)
        prompt = await self._calls.render(call)
        return await self.answer(call, prompt, "batch").run()

    def _limits(self) -> ModelLimits:
        """Of the model, and of the memory that its engine found, once it has."""
        context_tokens = self._engine.health.context_of(self._model.context_tokens)
        return ModelLimits(context_tokens, self._model.stop_tokens)
