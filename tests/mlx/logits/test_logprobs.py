"""Tests logprobs on tiny models: they are those of a fresh forward pass, whatever was drawn how."""

import mlx.core as mx
import numpy as np
import pytest

from pensieve.engine.generation import Generation, Logprobs, Sampling, Token
from pensieve.engine.model.cache_maker import CacheMaker
from pensieve.engine.model.decode_batch import DecodeBatch
from pensieve.engine.model.decode_slot import DecodeSlot
from pensieve.engine.model.logits.logprobs import RowLogprobs
from tests.mlx.logits.test_adjustments import logits_after
from tests.mlx.mtp.test_drafts import Answers, no_other_source
from tests.mlx.speculation.test_decoding import (
    GREEDY,
    PROMPTS,
    Bench,
    EverythingFed,
    Habit,
    Shapes,
    generation,
    lookups,
    readers,
)
from tests.support import tiny_architectures

LENGTH = 16
SAMPLINGS = {
    "greedy": GREEDY,
    "seeded": Sampling(temperature=1.5, top_p=0.9, seed=5),
    "penalties": Sampling(temperature=0.7, frequency_penalty=1.0, logit_bias=((3, 30.0),), seed=2),
}


@pytest.fixture(scope="module", params=["llama", "qwen3_5"])
def model(request: pytest.FixtureRequest) -> Habit:
    return Habit(tiny_architectures.build(request.param))


def tokens_of(bench: Bench, key: int) -> list[Token]:
    return [event for event in bench.events[key] if isinstance(event, Token)]


def check(model: Habit, prompt: tuple[int, ...], tokens: list[Token], top: int) -> None:
    """Compare with the logarithms of the softmax of fresh forward passes."""
    answer = [token.token_id for token in tokens]
    for at, token in enumerate(tokens):
        logits = logits_after(model, [*prompt, *answer[:at]]).astype(np.float64)
        expected = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
        assert token.logprobs is not None
        assert token.logprobs.token == pytest.approx(expected[token.token_id], abs=2e-3)
        values = [value for _, value in token.logprobs.top]
        assert values == pytest.approx(np.sort(expected)[::-1][:top], abs=2e-3)
        for likely, value in token.logprobs.top:
            assert value == pytest.approx(expected[likely], abs=2e-3)


@pytest.mark.parametrize("drafts", ["none", "mixed"])
@pytest.mark.parametrize("name", SAMPLINGS)
def test_logprobs_are_those_of_a_fresh_pass(model: Habit, name: str, drafts: str) -> None:
    sampling = SAMPLINGS[name]
    plain = Bench(model)
    plain.submit(0, generation(PROMPTS[0], sampling, max_tokens=LENGTH))
    known = {PROMPTS[0]: plain.run().tokens(0)}
    bench = Bench(model, drafter_of=readers(known, drafts) if drafts != "none" else None)
    bench.submit(0, generation(PROMPTS[0], sampling, max_tokens=LENGTH, top_logprobs=4))
    bench.run()
    assert bench.tokens(0) == known[PROMPTS[0]]
    check(model, PROMPTS[0], tokens_of(bench, 0), 4)


def test_logprobs_and_penalties_are_exact_with_an_mtp_head() -> None:
    sampling = SAMPLINGS["penalties"]
    answers = Answers(tiny_architectures.build("qwen3_5"))
    head = answers.head("mixed", sampling)
    bench = Bench(answers.model, drafter_of=no_other_source, head=head)
    bench.submit(0, generation(PROMPTS[0], sampling, max_tokens=LENGTH, top_logprobs=3))
    bench.run()
    assert bench.policy.accepted
    assert bench.tokens(0) == answers.of(PROMPTS[0], sampling)[:LENGTH]
    check(answers.model, PROMPTS[0], tokens_of(bench, 0), 3)


def test_rows_of_a_changing_batch_have_their_own_logprobs_and_plain_ones_none(
    model: Habit,
) -> None:
    bench = Bench(model, drafter_of=lookups(model))
    for key, (prompt, top) in enumerate(zip(PROMPTS, (0, None, 20), strict=True)):
        bench.submit(key, generation(prompt, max_tokens=LENGTH - 4 * key, top_logprobs=top))
        for _ in range(3):
            bench.step()
    bench.run()
    check(model, PROMPTS[0], tokens_of(bench, 0), 0)
    assert {token.logprobs for token in tokens_of(bench, 1)} == {None}
    check(model, PROMPTS[2], tokens_of(bench, 2), 20)


def test_interrupted_answer_resumes_with_its_logprobs(model: Habit) -> None:
    bench = Bench(model)
    bench.submit(0, generation(PROMPTS[0], max_tokens=LENGTH, top_logprobs=2))
    while len(bench.tokens(0)) < LENGTH // 2:
        bench.step()
    bench.scheduler._preempt(bench.scheduler._running[0])
    bench.run()
    assert len(bench.tokens(0)) == LENGTH
    check(model, PROMPTS[0], tokens_of(bench, 0), 2)


def test_stop_token_has_no_logprobs_and_ends_those_of_the_answer(model: Habit) -> None:
    plain = Bench(model)
    plain.submit(0, generation(PROMPTS[0], SAMPLINGS["seeded"], max_tokens=LENGTH))
    answer = plain.run().tokens(0)
    at = next(at for at in range(4, LENGTH) if answer[at] not in answer[:at])
    bench = Bench(model, drafter_of=readers({PROMPTS[0]: answer}, "oracle"))
    stops = frozenset({answer[at]})
    bench.submit(0, generation(PROMPTS[0], SAMPLINGS["seeded"], stop_tokens=stops, top_logprobs=1))
    bench.run()
    assert bench.tokens(0) == answer[:at]
    check(model, PROMPTS[0], tokens_of(bench, 0), 1)


def test_likeliest_tokens_are_in_descending_order_and_infinities_are_finite() -> None:
    logits = mx.array([[1.0, -mx.inf, 3.0, 3.0], [0.0, 5.0, 1.0, 2.0]])
    first, second = RowLogprobs.of(logits, mx.array([1, 1]), 99).read(2)
    assert first.token == -9999.0
    assert [token for token, _ in first.top] == [2, 3, 0, 1]
    assert [token for token, _ in second.top] == [1, 3, 2, 0]
    assert RowLogprobs.of(logits, mx.array([1, 1]), 0).read(1) == [Logprobs(-9999.0)]


def test_plain_rows_cost_no_more_next_to_a_row_with_logprobs(model: Habit) -> None:
    counted = []
    for top in (None, 5):
        shapes = Shapes(model)
        batch = DecodeBatch(model, EverythingFed(), shapes.read)
        for key, prompt in enumerate(PROMPTS):
            caches = [cache.merge([cache]) for cache in CacheMaker(model, is_ragged=True)()]
            own = top if key == 1 else None
            slot = DecodeSlot(key, [], 99, frozenset(), shapes.sampler, top_logprobs=own)
            batch.add(slot, caches, prompt)
        plain = [slot for slot in batch.slots if slot.top_logprobs is None]
        for _ in range(10):
            batch.step()
            assert all(slot.last_logprobs is None for slot in plain)
        counted.append((list(model.passes), shapes.draws, shapes.reads))
    assert counted[0] == counted[1]


@pytest.mark.parametrize("top", [-1, 21])
def test_numbers_out_of_range_are_refused(top: int) -> None:
    with pytest.raises(ValueError, match="not in"):
        Generation((1,), 1, top_logprobs=top)
