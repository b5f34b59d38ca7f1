"""The `Generation` that a call asks for: the rendered prompt, the sampling, and what bounds the answer."""

from dataclasses import dataclass
from typing import Literal

from pensieve.api.messages.request import MessagesRequest
from pensieve.dialects.sampling_defaults import SamplingDefaults
from pensieve.engine.generation import Generation, Grammar, Priority, Sampling
from pensieve.errors import PromptTooLongError
from pensieve.prompt.render import Prompt

LengthStop = Literal["max_tokens", "model_context_window_exceeded"]


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """What bounds a generation on the served model. context_tokens: prompt and answer together."""

    context_tokens: int
    stop_tokens: frozenset[int]


@dataclass(frozen=True, slots=True)
class BoundedGeneration:
    """A generation, and what it means when its length ends it: the client's limit or the model's context."""

    generation: Generation
    length_stop: LengthStop


def bounded_generation(
    call: MessagesRequest, prompt: Prompt, limits: ModelLimits, priority: Priority = "main"
) -> BoundedGeneration:
    """What the engine is asked for. max_tokens is cut to what the context has left, never refused.

    A call for no answer asks for one token, which reply drops: the engine processes no prompt without sampling.
    Raises `PromptTooLongError` where the prompt leaves no room for an answer.
    """
    room = limits.context_tokens - len(prompt.tokens)
    if room < 1:
        raise PromptTooLongError(len(prompt.tokens), limits.context_tokens)
    generation = Generation(
        prompt_tokens=prompt.tokens,
        max_tokens=min(max(call.max_tokens, 1), room),
        stop_tokens=limits.stop_tokens,
        sampling=_sampling(call, prompt.sampling),
        boundaries=prompt.boundaries,
        pinned_tokens=prompt.pinned_tokens,
        priority=priority,
        grammar=_grammar(call, prompt),
    )
    is_cut = call.max_tokens > room
    return BoundedGeneration(
        generation, "model_context_window_exceeded" if is_cut else "max_tokens"
    )


def _grammar(call: MessagesRequest, prompt: Prompt) -> Grammar | None:
    if call.max_tokens == 0 or prompt.plan.grammar is None:
        return None
    return Grammar(prompt.plan.grammar.lark)


def _sampling(call: MessagesRequest, defaults: SamplingDefaults) -> Sampling:
    """Field by field, as vLLM does: a call with a temperature alone keeps the model's nucleus.

    A nucleus of no mass holds the likeliest token alone: greedy.
    """
    top_p = defaults.top_p if call.top_p is None else call.top_p
    temperature = defaults.temperature if call.temperature is None else call.temperature
    return Sampling(
        temperature=temperature if top_p else 0.0,
        top_p=top_p or 1.0,
        top_k=defaults.top_k if call.top_k is None else call.top_k,
        min_p=defaults.min_p,
        repetition_penalty=defaults.repetition_penalty,
    )
