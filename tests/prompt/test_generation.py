"""Build generations: the prompt, the sampling, and the limit of the answer."""

from dataclasses import replace

import pytest

from pensieve.api.messages.request import MessagesRequest
from pensieve.dialects.answer_format import AnswerFormat
from pensieve.dialects.families import plain
from pensieve.dialects.grammar.answer_grammar import CallLimits
from pensieve.dialects.sampling_defaults import NEUTRAL, SamplingDefaults
from pensieve.engine.generation import Grammar, Sampling
from pensieve.errors import PromptTooLongError
from pensieve.prompt.boundaries import RenderedPrompt
from pensieve.prompt.constraints import AnswerConstraints, AnswerGrammar
from pensieve.prompt.generation import BoundedGeneration, ModelLimits, bounded_generation
from pensieve.prompt.render import Prompt

PLAN = AnswerConstraints(AnswerFormat(plain.DIALECT))
LIMITS = ModelLimits(context_tokens=100, stop_tokens=frozenset({259}))


def rendered(tokens: int) -> RenderedPrompt:
    return RenderedPrompt("", (1,) * tokens, ())


def generation_of(
    tokens: int = 1, defaults: SamplingDefaults = NEUTRAL, **fields: object
) -> BoundedGeneration:
    prompt = Prompt(rendered(tokens), tokens, PLAN, sampling=defaults)
    return bounded_generation(call_for(**fields), prompt, LIMITS)


def call_for(**fields: object) -> MessagesRequest:
    call = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 10}
    return MessagesRequest.model_validate(call | fields)


def test_max_tokens_is_unchanged_if_the_context_has_space() -> None:
    bounded = generation_of(90)
    assert bounded.generation.max_tokens == 10
    assert bounded.length_stop == "max_tokens"
    assert bounded.generation.stop_tokens == LIMITS.stop_tokens


def test_max_tokens_is_reduced_to_the_context_and_never_refused() -> None:
    bounded = generation_of(91, max_tokens=128_000)
    assert bounded.generation.max_tokens == 9
    assert bounded.length_stop == "model_context_window_exceeded"


def test_prompt_may_leave_space_for_a_single_token() -> None:
    assert generation_of(99).generation.max_tokens == 1


@pytest.mark.parametrize("length", [100, 101])
def test_prompt_that_leaves_no_space_is_too_long(length: int) -> None:
    with pytest.raises(PromptTooLongError) as caught:
        generation_of(length)
    assert caught.value.message == f"prompt is too long: {length} tokens > 100 maximum"


def test_request_for_no_answer_generates_one_token() -> None:
    assert generation_of(90, max_tokens=0).generation.max_tokens == 1


def test_generation_has_the_prompts_grammar_for_any_length() -> None:
    grammar = AnswerGrammar(plain.DIALECT, CallLimits(), {}, {}, "start: TEXT")
    prompt = Prompt(rendered(1), 1, replace(PLAN, grammar=grammar))
    grammars = [
        bounded_generation(call_for(max_tokens=length), prompt, LIMITS).generation.grammar
        for length in (0, 1)
    ]
    assert grammars == [None, Grammar("start: TEXT")]
    assert generation_of().generation.grammar is None


def test_sampling_is_taken_from_the_request() -> None:
    chosen = generation_of(temperature=0.5, top_p=0.9, top_k=40).generation.sampling
    assert chosen == Sampling(0.5, 0.9, 40)
    assert generation_of().generation.sampling == Sampling(1.0, 1.0, 0)


MADE_FOR = SamplingDefaults(0.6, 0.95, 20, min_p=0.01, repetition_penalty=1.05)
GREEDY = SamplingDefaults(temperature=0.0)


@pytest.mark.parametrize(
    ("defaults", "fields", "expected"),
    [
        (NEUTRAL, {}, (1.0, 1.0, 0)),
        (MADE_FOR, {}, (0.6, 0.95, 20)),
        (MADE_FOR, {"temperature": None}, (0.6, 0.95, 20)),
        (MADE_FOR, {"temperature": 1}, (1.0, 0.95, 20)),
        (MADE_FOR, {"temperature": 0}, (0.0, 0.95, 20)),
        (MADE_FOR, {"top_p": 1}, (0.6, 1.0, 20)),
        (MADE_FOR, {"top_k": 0}, (0.6, 0.95, 0)),
        (MADE_FOR, {"temperature": 0.1, "top_p": 0.2, "top_k": 3}, (0.1, 0.2, 3)),
        (GREEDY, {}, (0.0, 1.0, 0)),
        (GREEDY, {"temperature": 0.7}, (0.7, 1.0, 0)),
    ],
)
def test_each_sampling_field_is_the_requests_or_else_the_models(
    defaults: SamplingDefaults, fields: dict[str, object], expected: tuple[float, float, int]
) -> None:
    chosen = generation_of(defaults=defaults, **fields).generation.sampling
    assert (chosen.temperature, chosen.top_p, chosen.top_k) == expected
    assert (chosen.min_p, chosen.repetition_penalty) == (
        defaults.min_p,
        defaults.repetition_penalty,
    )


@pytest.mark.parametrize("defaults", [NEUTRAL, MADE_FOR])
def test_top_p_of_zero_is_greedy(defaults: SamplingDefaults) -> None:
    assert generation_of(defaults=defaults, top_p=0).generation.sampling.temperature == 0


def test_generation_has_boundaries_pinned_tokens_and_priority() -> None:
    prompt = Prompt(rendered(9), 9, PLAN, boundaries=(3, 7), pinned_tokens=3)
    generation = bounded_generation(call_for(), prompt, LIMITS, "agent").generation
    assert generation.boundaries == (3, 7)
    assert generation.pinned_tokens == 3
    assert generation.priority == "agent"
