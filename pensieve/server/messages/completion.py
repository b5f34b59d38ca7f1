"""Turns a prompt into an answer, as message events. The one place that calls the engine.

An endpoint streams the events or sends their accumulated message; batches use the message. The
engine's generation is open exactly as long as a caller waits for the answer.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pensieve.api.base import new_id
from pensieve.api.messages.accumulate import MessageAccumulator
from pensieve.api.messages.events import MessageEvent
from pensieve.api.messages.message import Message
from pensieve.engine.generation import Engine, Generation, Token
from pensieve.errors import EngineError, GrammarError
from pensieve.models.served_model import ServedModel
from pensieve.prompt.generation import (
    AnswerOptions,
    BoundedGeneration,
    ModelLimits,
    bounded_generation,
)
from pensieve.prompt.render import Prompt
from pensieve.prompt.template.generated_answers import GeneratedAnswer
from pensieve.reply.reply import Reply, ReplyContext

# The detokenizer needs the tokens just before the answer. Decoding the whole prompt would block the
# event loop for 0.4 s at 250 000 tokens (2026-11-22, two-core Linux machine).
PRECEDING_TOKENS = 16

Emit = Callable[[list[MessageEvent]], Awaitable[None]]
OnAnswer = Callable[[Message], None]
OnGenerated = Callable[[GeneratedAnswer], None]


async def discard(_: list[MessageEvent]) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Completion:
    """An unstarted answer."""

    engine: Engine
    bounded: BoundedGeneration
    prompt: Prompt
    reply: Reply
    on_generated: OnGenerated  # gets the tokens, where the prompt records its opening

    async def run(self, emit: Emit = discard, *, on_answer: OnAnswer | None = None) -> Message:
        """Generate, passing message events to `emit`.

        Cancellation or a stop sequence frees the engine's slot. `on_answer` gets the whole message
        just before its last events are emitted.
        """
        bounded = self.bounded
        accumulator = MessageAccumulator()
        while True:
            try:
                return await self._generate(bounded.generation, accumulator, emit, on_answer)
            except GrammarError as error:
                if self.reply.usage.output_tokens:
                    raise
                bounded = bounded.relaxed(error)

    async def _generate(
        self,
        generation: Generation,
        accumulator: MessageAccumulator,
        emit: Emit,
        on_answer: OnAnswer | None,
    ) -> Message:
        tokens: list[int] = []
        async with self.engine.generate(generation) as engine_events:
            async for event in engine_events:
                if isinstance(event, Token):
                    tokens.append(event.token_id)
                message_events = self.reply.feed(event)
                for message_event in message_events:
                    accumulator.feed(message_event)
                if self.reply.is_ended:
                    self._report_generated(accumulator.message, tokens)
                    if on_answer is not None:
                        on_answer(accumulator.message)
                if message_events:
                    await emit(message_events)
                if self.reply.is_ended:
                    return accumulator.message
        raise EngineError("The engine ended an answer without its last event.")

    def _report_generated(self, message: Message, tokens: list[int]) -> None:
        # Tokens after a stop sequence were generated, but are not in the message.
        if self.prompt.opening is not None and message.stop_reason != "stop_sequence":
            self.on_generated(GeneratedAnswer(self.prompt.opening, tokens, message.content))


class Completer:
    """Makes answers with one engine and one served model, which answers for any model name."""

    def __init__(self, engine: Engine, model: ServedModel, on_generated: OnGenerated) -> None:
        self._engine = engine
        self._model = model
        self._on_generated = on_generated
        self._markers = model.dialect.marks(model.tokenizer.controls)

    def complete(self, prompt: Prompt, options: AnswerOptions) -> Completion:
        """Raises `PromptTooLongError`."""
        context_tokens = self._engine.health.context_of(self._model.context_tokens)
        limits = ModelLimits(context_tokens, self._model.stop_tokens)
        bounded = bounded_generation(prompt, options, limits)
        context = ReplyContext(
            message_id=new_id("msg"),
            model=options.model,
            prompt_tokens=len(prompt.tokens),
            length_stop=bounded.length_stop,
            form=prompt.constraints.form,
            stop_sequences=options.stop_sequences,
            breakpoints=prompt.breakpoints,
            edits=prompt.edits,
            is_silent=options.max_tokens == 0,
            hides_thoughts=prompt.constraints.hides_thoughts,
        )
        preceding = prompt.tokens[-PRECEDING_TOKENS:]
        reply = Reply(context, self._model.tokenizer.detokenizer(preceding, self._markers))
        return Completion(self._engine, bounded, prompt, reply, self._on_generated)
