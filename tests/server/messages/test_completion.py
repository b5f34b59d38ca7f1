"""What the engine generates for a prompt: its sampling, grammar and limits."""

from dataclasses import replace

import pytest

from pensieve.dialects.answer_format import AnswerFormat
from pensieve.dialects.families import plain
from pensieve.dialects.grammar.answer_grammar import CallLimits
from pensieve.dialects.sampling_defaults import NEUTRAL, SamplingDefaults
from pensieve.engine.generation import Grammar, Sampling
from pensieve.errors import GrammarError, PromptTooLongError
from pensieve.prompt.constraints import AnswerConstraints, AnswerGrammar
from pensieve.prompt.render import Prompt
from pensieve.prompt.template.renderer import RenderedPrompt
from pensieve.server.messages.completion import (
    AnswerOptions,
    BoundedGeneration,
    ModelLimits,
    SamplingChoice,
    bounded_generation,
)

PLAN = AnswerConstraints(AnswerFormat(plain.DIALECT))
LIMITS = ModelLimits(context_tokens=100, stop_tokens=frozenset({259}))


def rendered(tokens: int) -> RenderedPrompt:
    return RenderedPrompt("", (1,) * tokens, ())


def generation_of(
    tokens: int = 1,
    defaults: SamplingDefaults = NEUTRAL,
    max_tokens: int | None = 10,
    **sampling: float | None,
) -> BoundedGeneration:
    prompt = Prompt(rendered(tokens), tokens, PLAN, sampling=defaults)
    options = AnswerOptions("m", max_tokens, sampling=SamplingChoice(**sampling))
    return bounded_generation(prompt, options, LIMITS)


def test_generation_has_the_prompts_hints() -> None:
    prompt = Prompt(rendered(1), 1, PLAN, hints=((1, 2), (3,)))
    options = AnswerOptions("m", 10)
    assert bounded_generation(prompt, options, LIMITS).generation.hints == ((1, 2), (3,))


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


def test_answer_without_a_limit_gets_what_the_context_has_left() -> None:
    bounded = generation_of(40, max_tokens=None)
    assert bounded.generation.max_tokens == 60
    assert bounded.length_stop == "model_context_window_exceeded"


GRAMMAR = AnswerGrammar(plain.DIALECT, CallLimits(), {}, {}, {}, "start: TEXT")


def generation_with_grammar(max_tokens: int) -> BoundedGeneration:
    prompt = Prompt(rendered(1), 1, replace(PLAN, grammar=GRAMMAR))
    return bounded_generation(prompt, AnswerOptions("m", max_tokens), LIMITS)


def test_generation_has_the_prompts_grammar_for_any_length() -> None:
    grammars = [generation_with_grammar(length).generation.grammar for length in (0, 1)]
    assert grammars == [None, Grammar("start: TEXT")]
    assert generation_of().generation.grammar is None


def test_generation_whose_grammar_fails_to_compile_is_left_without(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error = GrammarError("too much to compile")
    relaxed = generation_with_grammar(1).relaxed(error)
    assert relaxed.generation.grammar is None
    assert "grammar failed to compile, generating unconstrained" in caplog.text
    with pytest.raises(GrammarError) as caught:
        relaxed.relaxed(error)
    assert caught.value is error


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
    defaults: SamplingDefaults, fields: dict[str, float | None], expected: tuple[float, float, int]
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
    options = AnswerOptions("m", 10, priority="agent")
    generation = bounded_generation(prompt, options, LIMITS).generation
    assert generation.boundaries == (3, 7)
    assert generation.pinned_tokens == 3
    assert generation.priority == "agent"
