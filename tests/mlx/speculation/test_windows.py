"""Tests drafts over sliding windows that have dropped their first tokens."""

import mlx.core as mx
import pytest
from mlx_lm.generate import generate_step

from pensieve.engine.generation import Generation
from pensieve.engine.model.kv.window import WindowKVCache
from pensieve.engine.planning.memory_plan import GROWTH_TOKENS
from tests.mlx.speculation.test_decoding import (
    DISTORTIONS,
    GREEDY,
    Bench,
    Habit,
    check_caches,
    readers,
)
from tests.mlx.speculation.test_decoding import PROMPTS as SHORT_PROMPTS
from tests.support import tiny_architectures

# Tokens are dropped when the arrays are full, which is at this length for the second time.
DROPPED_AT = 3 * GROWTH_TOKENS
ANSWER_TOKENS = 60
PROMPTS = [
    tuple((at * at * seed + 3 * at) % 211 for at in range(length))
    for seed, length in ((1, DROPPED_AT - 20), (2, DROPPED_AT - 45), (5, 30))
]


@pytest.fixture(scope="module", params=["gemma3_text", "gpt_oss"])
def model(request: pytest.FixtureRequest) -> Habit:
    return Habit(tiny_architectures.build(request.param))


@pytest.fixture(scope="module")
def answers(model: Habit) -> dict[tuple[int, ...], list[int]]:
    return mlx_lms(model, PROMPTS, ANSWER_TOKENS)


def mlx_lms(
    model: Habit, prompts: list[tuple[int, ...]], max_tokens: int
) -> dict[tuple[int, ...], list[int]]:
    """Return mlx-lm's own answers."""
    return {
        prompt: [
            int(token) for token, _ in generate_step(mx.array(prompt), model, max_tokens=max_tokens)
        ]
        for prompt in prompts
    }


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_answers_equal_mlx_lms_while_windows_drop_tokens(
    model: Habit, answers: dict, kind: str
) -> None:
    bench = Bench(model, drafter_of=readers(answers, kind), longest=31)
    for key, prompt in enumerate(PROMPTS):
        bench.submit(key, Generation(prompt, ANSWER_TOKENS, sampling=GREEDY))
    starts: set[int] = set()
    while not bench.scheduler.is_idle:
        bench.step()
        starts |= {cache.start for cache in windows(bench)}
    assert [bench.tokens(key) for key in range(3)] == [answers[prompt] for prompt in PROMPTS]
    assert len(starts) > 2
    for key, prompt in enumerate(PROMPTS):
        assert check_caches(bench, prompt, bench.tokens(key)) >= len(prompt)


def windows(bench: Bench) -> list[WindowKVCache]:
    batch = bench.scheduler._backend._decode_batch
    return [
        one for layer in batch._caches for one in layer.sequences if isinstance(one, WindowKVCache)
    ]


@pytest.mark.parametrize("family", tiny_architectures.WITH_WINDOWS)
def test_every_family_gives_mlx_lms_answers_beyond_its_window(family: str) -> None:
    """The prompt that is tried when a model is loaded is shorter than any window."""
    fields = tiny_architectures.WITH_WINDOWS[family]
    model = Habit(tiny_architectures.build(family, fields), 20)
    prompts = SHORT_PROMPTS[:2]
    answers = mlx_lms(model, prompts, 24)
    bench = Bench(model, drafter_of=readers(answers, "mixed"))
    assert any(isinstance(cache, WindowKVCache) for cache in bench.make_caches())
    for key, prompt in enumerate(prompts):
        bench.submit(key, Generation(prompt, 24 + 8 * key, sampling=GREEDY))
    bench.run()
    assert [bench.tokens(key)[:24] for key in (0, 1)] == [answers[prompt] for prompt in prompts]
    assert bench.policy.accepted
