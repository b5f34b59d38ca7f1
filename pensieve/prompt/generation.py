"""Build the `Generation` of a prompt from what the request wants of its answer.

The values here are of no wire: each wire reads them from its own requests.
"""

import logging
from dataclasses import dataclass, replace
from typing import Literal

from pensieve.dialects.sampling_defaults import SamplingDefaults
from pensieve.engine.generation import Generation, Grammar, Priority, Sampling
from pensieve.errors import GrammarError, PromptTooLongError
from pensieve.prompt.constraints import AnswerGrammar
from pensieve.prompt.render import Prompt

_log = logging.getLogger("pensieve.prompt")

LengthStop = Literal["max_tokens", "model_context_window_exceeded"]


@dataclass(frozen=True, slots=True)
class SamplingChoice:
    """The sampling that a request sets. None: from the settings or the model."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    model: str  # the name that the answer reports
    max_tokens: int | None = None  # None: as many as fit; 0: process the prompt alone
    stop_sequences: tuple[str, ...] = ()
    sampling: SamplingChoice = SamplingChoice()
    priority: Priority = "main"


@dataclass(frozen=True, slots=True)
class ModelLimits:
    context_tokens: int  # prompt and answer together
    stop_tokens: frozenset[int]


@dataclass(frozen=True, slots=True)
class BoundedGeneration:
    generation: Generation
    length_stop: LengthStop  # the stop reason if the generation ends by its length
    grammar: AnswerGrammar | None = None  # the generation's

    def relaxed(self, error: GrammarError) -> "BoundedGeneration":
        """Return the generation with a grammar that may compile where this one does not, or none.

        Raises `error` if it has none, and `InvalidRequestError` if the client relies on it.
        """
        if self.grammar is None:
            raise error
        grammar = self.grammar.relaxed(error.message)
        if grammar is None:
            _log.warning("grammar failed to compile, generating unconstrained: %s", error.message)
        return replace(
            self,
            generation=replace(self.generation, grammar=grammar and Grammar(grammar.lark)),
            grammar=grammar,
        )


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
        max_tokens=min(max(max_tokens, 1), available_tokens),
        stop_tokens=limits.stop_tokens,
        sampling=_sampling(options.sampling, prompt.sampling),
        boundaries=prompt.boundaries,
        pinned_tokens=prompt.pinned_tokens,
        priority=options.priority,
        grammar=grammar and Grammar(grammar.lark),
    )
    is_reduced = max_tokens > available_tokens
    length_stop = "model_context_window_exceeded" if is_reduced else "max_tokens"
    return BoundedGeneration(generation, length_stop, grammar)


def _sampling(choice: SamplingChoice, defaults: SamplingDefaults) -> Sampling:
    """Choose field by field, as vLLM does: a request that sets only a temperature keeps top_p.

    A top_p of 0 keeps the likeliest token alone, so it means greedy sampling.
    """
    top_p = defaults.top_p if choice.top_p is None else choice.top_p
    temperature = defaults.temperature if choice.temperature is None else choice.temperature
    return Sampling(
        temperature=temperature if top_p else 0.0,
        top_p=top_p or 1.0,
        top_k=defaults.top_k if choice.top_k is None else choice.top_k,
        min_p=defaults.min_p,
        repetition_penalty=defaults.repetition_penalty,
    )
