"""Turns a prompt into an answer, as message events. The one place that calls the engine.

An endpoint streams the events or sends their accumulated message; batches use the message. The
engine's generation is open exactly as long as a caller waits for the answer. Knows no wire: each
endpoint passes what its request wants of the answer as `AnswerOptions`.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import anyio

from pensieve.api.base import new_id
from pensieve.api.messages.accumulate import MessageAccumulator
from pensieve.api.messages.events import MessageEvent
from pensieve.api.messages.message import Message
from pensieve.engine.generation import (
    Engine,
    EngineEvent,
    Generation,
    Grammar,
    Priority,
    Sampling,
    Token,
)
from pensieve.engine.pictures import text_tokens
from pensieve.errors import EngineError, GrammarError, InvalidRequestError, PromptTooLongError
from pensieve.models.served_model import ServedModel
from pensieve.prompt.constraints import AnswerGrammar
from pensieve.prompt.render import Prompt
from pensieve.prompt.template.generated_answers import GeneratedAnswer
from pensieve.reply.reply import Reply, ReplyContext
from pensieve.reply.text_logprobs import TextLogprobs

_log = logging.getLogger("pensieve.server")

# The detokenizer needs the tokens just before the answer. Decoding the whole prompt would block the
# event loop for 0.4 s at 250 000 tokens (2026-11-22, two-core Linux machine).
PRECEDING_TOKENS = 16

LengthStop = Literal["max_tokens", "model_context_window_exceeded"]
Emit = Callable[[list[MessageEvent]], Awaitable[None]]
# The index of an answer, and its events.
EmitChoice = Callable[[int, list[MessageEvent]], Awaitable[None]]
OnAnswer = Callable[[Message], None]
OnEvent = Callable[[EngineEvent], None]
# Gets a generation as it is submitted, and the most tokens of its answer; returns what gets the
# events of it.
OnBegin = Callable[[Generation, int], OnEvent]
OnGenerated = Callable[[GeneratedAnswer], None]


@dataclass(frozen=True, slots=True)
class SamplingChoice:
    """The sampling that a request sets. None: from the settings or the model."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None  # None: every answer is another one
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()

    def of_choice(self, index: int) -> "SamplingChoice":
        """Return the sampling of one of several answers: with a seed, each has the next one."""
        return self if self.seed is None else replace(self, seed=self.seed + index)


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    model: str  # the name that the answer reports
    max_tokens: int | None = None  # None: as many as fit; 0: process the prompt alone
    stop_sequences: tuple[str, ...] = ()
    sampling: SamplingChoice = SamplingChoice()
    priority: Priority = "main"
    # Likeliest tokens to report with each token of the text; None: no logprobs at all.
    top_logprobs: int | None = None
    choices: int = 1  # answers
    client: str = ""  # the name of its key; empty for the server's own


@dataclass(frozen=True, slots=True)
class ModelLimits:
    context_tokens: int  # prompt and answer together
    stop_tokens: frozenset[int]


@dataclass(frozen=True, slots=True)
class BoundedGeneration:
    generation: Generation
    length_stop: LengthStop  # the stop reason if the generation ends by its length
    max_tokens: int  # of the answer; 0: its only token is dropped
    grammar: AnswerGrammar | None = None  # the generation's

    def relaxed(self, error: GrammarError) -> "BoundedGeneration":
        """Return the generation with a grammar that may compile where this one does not, or none.

        Raises `error` if it has none, and `InvalidRequestError` if the client relies on it.
        """
        if self.grammar is None:
            raise error
        grammar = self.grammar.relaxed(error.message)
        if grammar is None:
            _log.warning("grammar failed to compile, generating unconstrained")
            _log.debug("its error: %s", error.message)
        return replace(
            self,
            generation=replace(self.generation, grammar=grammar and Grammar(grammar.lark)),
            grammar=grammar,
        )


async def discard(_: list[MessageEvent]) -> None:
    pass


def unobserved(_generation: Generation, _max_tokens: int) -> OnEvent:
    return lambda _: None


@dataclass(frozen=True, slots=True)
class Completion:
    """An unstarted answer."""

    engine: Engine
    bounded: BoundedGeneration
    prompt: Prompt
    reply: Reply
    on_generated: OnGenerated  # gets the tokens, where the prompt records its opening

    async def run(
        self,
        emit: Emit = discard,
        *,
        on_answer: OnAnswer | None = None,
        on_begin: OnBegin = unobserved,
    ) -> Message:
        """Generate, passing message events to `emit`.

        Cancellation or a stop sequence frees the engine's slot. `on_answer` gets the whole message
        just before its last events are emitted.
        """
        bounded = self.bounded
        accumulator = MessageAccumulator()
        while True:
            try:
                on_event = on_begin(bounded.generation, bounded.max_tokens)
                return await self._generate(
                    bounded.generation, accumulator, emit, on_answer, on_event
                )
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
        on_event: OnEvent,
    ) -> Message:
        tokens: list[int] = []
        async with self.engine.generate(generation) as engine_events:
            async for event in engine_events:
                on_event(event)
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


@dataclass(frozen=True, slots=True)
class Choices:
    """Several answers to one prompt, generated together. Most requests want one."""

    completions: Sequence[Completion]  # at least one
    on_begin: OnBegin = unobserved

    async def run(self, emit: EmitChoice, *, on_answer: OnAnswer | None = None) -> Message:
        """Generate all, as `Completion.run` does; return the first message.

        `emit` is called for one answer at a time. If one fails, so do the others.
        """
        first, *others = self.completions
        if not others:
            return await first.run(partial(emit, 0), on_answer=on_answer, on_begin=self.on_begin)
        messages: dict[int, Message] = {}
        lock = anyio.Lock()

        async def run(choice: int, completion: Completion) -> None:
            async def emit_alone(events: list[MessageEvent]) -> None:
                async with lock:
                    await emit(choice, events)

            messages[choice] = await completion.run(
                emit_alone, on_answer=on_answer, on_begin=self.on_begin
            )

        try:
            async with anyio.create_task_group() as tasks:
                for choice, completion in enumerate(self.completions):
                    tasks.start_soon(run, choice, completion)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        return messages[0]


class Completer:
    """Makes answers with one engine and one served model, which answers for any model name."""

    def __init__(self, engine: Engine, model: ServedModel, on_generated: OnGenerated) -> None:
        self._engine = engine
        # Returns a block in which a prompt is prepared.
        self.expect = engine.expect
        self._model = model
        self._on_generated = on_generated
        self._markers = model.dialect.marks(model.tokenizer.controls)

    def complete(self, prompt: Prompt, options: AnswerOptions) -> Completion:
        """Raises `PromptTooLongError`, and `InvalidRequestError` for a bias of an unknown token."""
        if options.sampling.logit_bias:
            self._check_bias(options.sampling)
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
        if prompt.rendered.pictures:
            preceding = text_tokens(preceding, prompt.rendered.pictures)
        tokenizer = self._model.tokenizer
        reply = Reply(
            context,
            tokenizer.detokenizer(preceding, self._markers),
            None if options.top_logprobs is None else TextLogprobs(tokenizer),
        )
        return Completion(self._engine, bounded, prompt, reply, self._on_generated)

    def choices(self, prompt: Prompt, options: AnswerOptions) -> list[Completion]:
        """Return `options.choices` answers. Raises what `complete` raises."""
        return [
            self.complete(prompt, replace(options, sampling=options.sampling.of_choice(at)))
            for at in range(options.choices)
        ]

    def _check_bias(self, sampling: SamplingChoice) -> None:
        has_token = self._model.tokenizer.has_token
        for token_id, _ in sampling.logit_bias:
            if not (0 <= token_id < 2**31 and has_token(token_id)):
                raise InvalidRequestError(f"logit_bias: The model has no token {token_id}")


def bounded_generation(
    prompt: Prompt, options: AnswerOptions, limits: ModelLimits
) -> BoundedGeneration:
    """Return what the engine generates; max_tokens is reduced to what the context has left.

    A request for no answer gets one token, which reply drops: the engine processes no prompt
    without sampling. Raises `PromptTooLongError` if no token is left for an answer.
    """
    available_tokens = limits.context_tokens - len(prompt.tokens)
    if available_tokens < 1:
        raise PromptTooLongError(len(prompt.tokens), limits.context_tokens)
    max_tokens = limits.context_tokens if options.max_tokens is None else options.max_tokens
    grammar = None if options.max_tokens == 0 else prompt.constraints.grammar
    generation = Generation(
        prompt_tokens=prompt.tokens,
        pictures=prompt.rendered.pictures,
        max_tokens=min(max(max_tokens, 1), available_tokens),
        stop_tokens=limits.stop_tokens | prompt.stop_tokens,
        sampling=_sampling(options.sampling, prompt),
        boundaries=prompt.boundaries,
        pinned_tokens=prompt.pinned_tokens,
        priority=options.priority,
        client=options.client,
        grammar=grammar and Grammar(grammar.lark),
        hints=prompt.hints,
        top_logprobs=options.top_logprobs,
        shares_prompt=options.choices > 1,
    )
    is_reduced = max_tokens > available_tokens
    length_stop = "model_context_window_exceeded" if is_reduced else "max_tokens"
    answer_tokens = min(max_tokens, available_tokens)
    return BoundedGeneration(generation, length_stop, answer_tokens, grammar)


def _sampling(choice: SamplingChoice, prompt: Prompt) -> Sampling:
    """Choose field by field, as vLLM does: a request that sets only a temperature keeps top_p.

    A top_p of 0 keeps the likeliest token alone, so it means greedy sampling.
    """
    defaults = prompt.sampling
    top_p = defaults.top_p if choice.top_p is None else choice.top_p
    temperature = defaults.temperature if choice.temperature is None else choice.temperature
    penalty = choice.repetition_penalty
    return Sampling(
        temperature=temperature if top_p else 0.0,
        top_p=top_p or 1.0,
        top_k=defaults.top_k if choice.top_k is None else choice.top_k,
        seed=choice.seed,
        min_p=defaults.min_p if choice.min_p is None else choice.min_p,
        repetition_penalty=defaults.repetition_penalty if penalty is None else penalty,
        frequency_penalty=choice.frequency_penalty,
        presence_penalty=choice.presence_penalty,
        logit_bias=choice.logit_bias,
    )
