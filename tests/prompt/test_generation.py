"""What the engine is asked for: the prompt, the sampling, and how long the answer may be."""

import pytest

from pensieve.api.request import MessagesRequest
from pensieve.dialects import plain
from pensieve.dialects.answer import AnswerForm
from pensieve.engine.generation import Sampling
from pensieve.errors import PromptTooLongError
from pensieve.prompt.generation import BoundedGeneration, ModelLimits, bounded_generation
from pensieve.prompt.places import RenderedPrompt
from pensieve.prompt.plan import AnswerPlan
from pensieve.prompt.render import Prompt

PLAN = AnswerPlan(AnswerForm(plain.DIALECT))
LIMITS = ModelLimits(context_tokens=100, stop_tokens=frozenset({259}))


def rendered(tokens: int) -> RenderedPrompt:
    return RenderedPrompt("", (1,) * tokens, ())


def asked(tokens: int = 1, **fields: object) -> BoundedGeneration:
    call = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 10}
    prompt = Prompt(rendered(tokens), tokens, PLAN)
    return bounded_generation(MessagesRequest.model_validate(call | fields), prompt, LIMITS)


def test_max_tokens_is_kept_where_the_context_has_room() -> None:
    bounded = asked(90)
    assert bounded.generation.max_tokens == 10
    assert bounded.length_stop == "max_tokens"
    assert bounded.generation.stop_tokens == LIMITS.stop_tokens


def test_max_tokens_is_cut_to_the_context_and_never_refused() -> None:
    bounded = asked(91, max_tokens=128_000)
    assert bounded.generation.max_tokens == 9
    assert bounded.length_stop == "model_context_window_exceeded"


@pytest.mark.parametrize("length", [100, 101])
def test_a_prompt_that_leaves_no_room_is_too_long(length: int) -> None:
    with pytest.raises(PromptTooLongError) as caught:
        asked(length)
    assert caught.value.message == f"prompt is too long: {length} tokens > 100 maximum"


def test_a_call_for_no_answer_asks_the_engine_for_the_least() -> None:
    assert asked(90, max_tokens=0).generation.max_tokens == 1


def test_sampling_is_what_the_call_says() -> None:
    chosen = asked(temperature=0.5, top_p=0.9, top_k=40).generation.sampling
    assert chosen == Sampling(0.5, 0.9, 40)
    assert asked().generation.sampling == Sampling(1.0, 1.0, 0)


def test_a_nucleus_of_nothing_is_greedy() -> None:
    assert asked(top_p=0).generation.sampling.temperature == 0


def test_the_engine_learns_what_is_worth_keeping_and_who_waits() -> None:
    call = MessagesRequest.model_validate(
        {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 10}
    )
    prompt = Prompt(rendered(9), 9, PLAN, boundaries=(3, 7), pinned_tokens=3)
    generation = bounded_generation(call, prompt, LIMITS, "agent").generation
    assert generation.boundaries == (3, 7)
    assert generation.pinned_tokens == 3
    assert generation.priority == "agent"
