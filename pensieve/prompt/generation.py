"""Build the `Generation` of a request: the rendered prompt, the sampling, and the limits of the
answer.
"""

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
    context_tokens: int  # prompt and answer together
    stop_tokens: frozenset[int]


@dataclass(frozen=True, slots=True)
class BoundedGeneration:
    generation: Generation
    length_stop: LengthStop  # the stop reason if the generation ends by its length


def bounded_generation(
    call: MessagesRequest, prompt: Prompt, limits: ModelLimits, priority: Priority = "main"
) -> BoundedGeneration:
    """Return what the engine generates; max_tokens is reduced to what the context has left.

    A request for no answer gets one token, which reply drops: the engine processes no prompt
    without sampling. Raises `PromptTooLongError` if no token is left for an answer.
    """
    available_tokens = limits.context_tokens - len(prompt.tokens)
    if available_tokens < 1:
        raise PromptTooLongError(len(prompt.tokens), limits.context_tokens)
    generation = Generation(
        prompt_tokens=prompt.tokens,
        max_tokens=min(max(call.max_tokens, 1), available_tokens),
        stop_tokens=limits.stop_tokens,
        sampling=_sampling(call, prompt.sampling),
        boundaries=prompt.boundaries,
        pinned_tokens=prompt.pinned_tokens,
        priority=priority,
        grammar=_grammar(call, prompt),
    )
    is_reduced = call.max_tokens > available_tokens
    return BoundedGeneration(
        generation, "model_context_window_exceeded" if is_reduced else "max_tokens"
    )


def _grammar(call: MessagesRequest, prompt: Prompt) -> Grammar | None:
    if call.max_tokens == 0 or prompt.constraints.grammar is None:
        return None
    return Grammar(prompt.constraints.grammar.lark)


def _sampling(call: MessagesRequest, defaults: SamplingDefaults) -> Sampling:
    """Choose field by field, as vLLM does: a request that sets only a temperature keeps top_p.

    A top_p of 0 keeps the likeliest token alone, so it means greedy sampling.
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
