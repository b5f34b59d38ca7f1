"""Tests bias and penalties on tiny models: the tokens are those of a reference in numpy."""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
import pytest

from pensieve.engine.generation import Sampling
from pensieve.engine.grammar.mask import TokenMask
from pensieve.engine.model.decode_batch import DecodeBatch
from pensieve.engine.model.decode_slot import DecodeSlot
from pensieve.engine.model.logits.sampling import make_sampler
from tests.mlx.speculation.test_decoding import (
    GREEDY,
    PROMPTS,
    Bench,
    EverythingFed,
    Habit,
    generation,
    readers,
)
from tests.support import tiny_architectures

BIAS = ((3, 40.0), (7, -100.0), (11, 25.5))
SAMPLINGS = {
    "frequency": Sampling(temperature=0, frequency_penalty=1.5),
    "presence": Sampling(temperature=0, presence_penalty=2.0),
    "negative": Sampling(temperature=0, frequency_penalty=-2.0, presence_penalty=-2.0),
    "bias": Sampling(temperature=0, logit_bias=BIAS),
    "all": Sampling(temperature=0, frequency_penalty=0.9, presence_penalty=-0.4, logit_bias=BIAS),
}
LENGTH = 24


@pytest.fixture(scope="module")
def model() -> Habit:
    return Habit(tiny_architectures.build("llama"))


def logits_after(model: Habit, tokens: Sequence[int]) -> np.ndarray:
    """Return the logits of a fresh forward pass."""
    return np.array(model(mx.array([tokens]), cache=None)[0, -1].astype(mx.float32))


def reference(model: Habit, prompt: Sequence[int], sampling: Sampling, length: int) -> list[int]:
    answer: list[int] = []
    while len(answer) < length:
        logits = logits_after(model, [*prompt, *answer])
        for token, bias in sampling.logit_bias:
            logits[token] += bias
        counts = np.bincount(answer, minlength=len(logits))
        logits -= sampling.frequency_penalty * counts + sampling.presence_penalty * (counts > 0)
        answer.append(int(logits.argmax()))
    return answer


@pytest.fixture(scope="module")
def answers(model: Habit) -> dict[str, dict[tuple[int, ...], list[int]]]:
    return {
        name: {prompt: reference(model, prompt, sampling, LENGTH) for prompt in PROMPTS[:2]}
        for name, sampling in SAMPLINGS.items()
    }


def test_references_differ_from_the_plain_answer(model: Habit, answers) -> None:
    plain = reference(model, PROMPTS[0], GREEDY, LENGTH)
    assert all(answer[PROMPTS[0]] != plain for answer in answers.values())


@pytest.mark.parametrize("drafts", ["none", "mixed"])
@pytest.mark.parametrize("name", SAMPLINGS)
def test_answers_equal_the_reference_next_to_plain_ones(
    model: Habit, answers, name: str, drafts: str
) -> None:
    known = answers[name]
    plain = {PROMPTS[2]: reference(model, PROMPTS[2], GREEDY, LENGTH)}
    drafter_of = None if drafts == "none" else readers(known | plain, drafts)
    bench = Bench(model, drafter_of=drafter_of)
    for key, prompt in enumerate(PROMPTS[:2]):
        bench.submit(key, generation(prompt, SAMPLINGS[name], max_tokens=LENGTH))
    bench.submit(2, generation(PROMPTS[2], max_tokens=LENGTH))
    bench.run()
    assert [bench.tokens(key) for key in (0, 1)] == [known[prompt] for prompt in PROMPTS[:2]]
    assert bench.tokens(2) == plain[PROMPTS[2]]


@pytest.mark.parametrize("drafts", [None, "mixed"])
def test_interrupted_answer_resumes_with_its_counts(
    model: Habit, answers, drafts: str | None
) -> None:
    known = answers["all"]
    bench = Bench(model, drafter_of=readers(known, drafts) if drafts else None)
    bench.submit(0, generation(PROMPTS[0], SAMPLINGS["all"], max_tokens=LENGTH))
    while len(bench.tokens(0)) < LENGTH // 2:
        bench.step()
    bench.scheduler._preempt(bench.scheduler._running[0])
    assert bench.run().tokens(0) == known[PROMPTS[0]]


def test_tokens_of_the_prompt_are_not_counted(model: Habit) -> None:
    # The answer repeats its prompt if nothing else does.
    sampling = Sampling(temperature=0, frequency_penalty=2.0)
    prompt = tuple(reference(model, PROMPTS[0], GREEDY, 20))
    bench = Bench(model)
    bench.submit(0, generation(prompt, sampling, max_tokens=8))
    assert bench.run().tokens(0) == reference(model, prompt, sampling, 8)


class ThreeTokens:
    """A model without caches that prefers the first token."""

    def __call__(self, tokens, cache):
        return mx.broadcast_to(mx.array([3.0, 2.0, 1.0]), (*tokens.shape, 3))


class Never:
    """A grammar that never allows some tokens, and forces nothing."""

    def __init__(self, *forbidden: int) -> None:
        self._forbidden = forbidden

    def advance(self, token_id: int) -> None:
        assert token_id not in self._forbidden

    def masks(self, drafts: Sequence[int]) -> list[bytearray]:
        return [bytearray(at not in self._forbidden for at in range(3))] * (1 + len(drafts))

    def forced(self) -> list[int]:
        return []

    def valid(self, tokens: Sequence[int]) -> int:
        return len(tokens)


@pytest.mark.parametrize(
    ("sampling", "forbidden", "expected"),
    [
        (Sampling(temperature=0, logit_bias=((0, 100.0),)), (0,), [1, 1, 1, 1]),
        (Sampling(temperature=0, logit_bias=((2, -100.0),)), (0, 1), [2, 2, 2, 2]),
        (Sampling(temperature=0, presence_penalty=1.5), (0,), [1, 2, 1, 1]),
    ],
)
def test_grammar_is_stronger_than_bias_and_penalties(
    sampling: Sampling, forbidden: tuple[int, ...], expected: list[int]
) -> None:
    mask = TokenMask(Never(*forbidden))
    slot = DecodeSlot(1, [], 4, frozenset(), make_sampler(sampling), mask, sampling=sampling)
    assert drawn_by(slot) == expected
    assert mask.failure is None


def drawn_by(slot: DecodeSlot) -> list[int]:
    batch = DecodeBatch(ThreeTokens(), EverythingFed())
    batch.add(slot, [], [0])
    drawn: list[int] = []
    while batch.slots:
        drawn += [token for step in batch.step() for token in step.tokens]
    return drawn


def test_biased_draws_have_the_distribution_of_the_biased_logits() -> None:
    sampling = Sampling(temperature=1.0, seed=5, logit_bias=((2, 1.0), (0, -100.0)))
    slot = DecodeSlot(1, [], 400, frozenset(), make_sampler(sampling), sampling=sampling)
    drawn = drawn_by(slot)
    assert drawn.count(0) == 0
    assert 150 < drawn.count(2) < 250  # both logits are 2


@pytest.mark.parametrize(
    "values",
    [
        {"frequency_penalty": 2.1},
        {"presence_penalty": -2.1},
        {"presence_penalty": float("nan")},
        {"logit_bias": ((1, 100.5),)},
        {"logit_bias": ((1, float("nan")),)},
    ],
)
def test_values_out_of_range_are_refused(values: dict) -> None:
    with pytest.raises(ValueError, match="not in"):
        Sampling(**values)
