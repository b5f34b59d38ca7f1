"""Tests drafts on models with state-space layers, whose states cannot be trimmed.

After a refused draft the states before the pass are put back, and the tokens that stay are fed
again with the next pass.
"""

from functools import partial
from pathlib import Path

import mlx.core as mx
import pytest

from pensieve.engine.generation import Generation
from pensieve.engine.model.batch import BatchBackend
from pensieve.engine.model.cache_maker import CacheMaker
from pensieve.engine.model.decode_batch import DecodeBatch
from pensieve.engine.model.decode_slot import DecodeSlot
from pensieve.engine.model.logits.sampling import make_sampler
from pensieve.engine.scheduling.prefill_chunks import ChunkSizer
from pensieve.engine.speculation.draft_source import FAR_DRAFTS
from pensieve.engine.speculation.drafter import Speculation
from tests.mlx.speculation.test_decoding import (
    ANSWER_TOKENS,
    DISTORTIONS,
    GREEDY,
    PRECISIONS,
    PROMPTS,
    SAMPLINGS,
    Bench,
    EverythingFed,
    Habit,
    assert_finished,
    first_seen,
    generation,
    lookups,
    plain_answers,
    readers,
)
from tests.mlx.speculation.test_grammar_drafts import DRAFTERS, generations
from tests.mlx.test_grammar import Bench as GrammarBench
from tests.support import tiny_architectures, tiny_models

PROMPT = PROMPTS[0]


# qwen3_next has the layers of qwen3_5; one test tries it.
@pytest.fixture(scope="module", params=["qwen3_5", "granitemoehybrid"])
def model(request: pytest.FixtureRequest) -> Habit:
    return Habit(tiny_architectures.build(request.param))


def check_states(bench: Bench, prompt: tuple[int, ...], answer: list[int]) -> int:
    """Compare all cached arrays of an answer with a fresh prefill's; return the cached length."""
    tokens = (*prompt, *answer)
    hit = bench.prefixes.acquire((*tokens, 1))
    assert hit is not None
    held = hit.cached_tokens
    fresh = bench.make_caches()
    merged = [cache.merge([cache]) for cache in fresh]
    bench.model(mx.array([tokens[:held]]), cache=merged)
    for cache, batch in zip(hit.state.caches, merged, strict=True):
        expected = batch.extract(0)
        if hasattr(cache, "precision"):
            arrays, others = cache.arrays(0, held), expected.arrays(0, held)
        else:
            arrays, others = cache.cache, expected.cache
        for one, other in zip(arrays, others, strict=True):
            assert mx.allclose(one, other, rtol=1e-3, atol=1e-4).item()
    return held


@pytest.mark.parametrize(
    ("sampling", "precision"),
    [("greedy", "16"), ("seeded", "16"), ("penalty", "16"), ("top_p", "8")],
)
def test_tokens_with_drafts_equal_those_without_alone_and_in_a_changing_batch(
    model: Habit, sampling: str, precision: str
) -> None:
    check_tokens(model, sampling, precision)


def test_tokens_of_qwen3_next_with_drafts_equal_those_without() -> None:
    check_tokens(Habit(tiny_architectures.build("qwen3_next")), "seeded", "16")


def check_tokens(model: Habit, sampling: str, precision: str) -> None:
    chosen, stored = SAMPLINGS[sampling], PRECISIONS[precision]
    answers = plain_answers(model, chosen, stored)
    for kind in (*DISTORTIONS, "lookup"):
        drafter_of = lookups(model) if kind == "lookup" else readers(answers, kind)
        alone = Bench(model, stored, drafter_of)
        alone.submit(0, generation(PROMPT, chosen))
        assert alone.run().tokens(0) == answers[PROMPT], kind
        bench = Bench(model, stored, drafter_of)
        for key, prompt in enumerate(PROMPTS):
            bench.submit(key, generation(prompt, chosen, max_tokens=ANSWER_TOKENS - 16 * key))
            for _ in range(6):
                bench.step()
        bench.run()
        for key, prompt in enumerate(PROMPTS):
            assert bench.tokens(key) == answers[prompt][: ANSWER_TOKENS - 16 * key], kind
        if kind != "lookup":
            assert (alone.policy.accepted > 0) == (kind != "liar")
            assert alone.policy.drafted >= 40


def test_refused_drafts_cost_no_pass_of_their_own(model: Habit) -> None:
    answers = plain_answers(model, GREEDY)
    bench = Bench(model, drafter_of=readers(answers, "liar"), longest=3)
    bench.submit(0, generation(PROMPT))
    model.passes.clear()
    bench.run()
    # The prompt, the guess, a token each.
    assert len(model.passes) <= 2 + ANSWER_TOKENS
    assert bench.policy.drafted > ANSWER_TOKENS
    # All rows of a pass fit one tile.
    assert FAR_DRAFTS < max(rows for _, rows in model.passes[1:]) <= FAR_DRAFTS + 1


def test_right_drafts_need_a_seventh_of_the_passes(model: Habit) -> None:
    answers = plain_answers(model, GREEDY)
    bench = Bench(model, drafter_of=readers(answers, "oracle"))
    bench.submit(0, generation(PROMPT))
    model.passes.clear()
    bench.run()
    assert len(model.passes) <= 2 + -(-ANSWER_TOKENS // 7)
    assert bench.policy.accepted == bench.policy.drafted > 32


def test_sequences_decode_together_without_drafts(model: Habit) -> None:
    answers = plain_answers(model, GREEDY)
    bench = Bench(model, drafter_of=readers(answers, "oracle"))
    for key, prompt in enumerate(PROMPTS[:2]):
        bench.submit(key, generation(prompt))
    while not (bench.tokens(0) and bench.tokens(1)):
        bench.step()
    bench.policy.plans.clear()
    for _ in range(5):
        bench.step()
    assert {plan.drafts for plan in bench.policy.plans} == {(0, 0)}


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_caches_of_an_answer_equal_a_fresh_prefills(model: Habit, kind: str) -> None:
    sampling = SAMPLINGS["seeded"]
    answers = plain_answers(model, sampling)
    for max_tokens in (20, 23, 25, 29):
        bench = Bench(model, drafter_of=readers(answers, kind))
        bench.submit(0, generation(PROMPT, sampling, max_tokens=max_tokens))
        bench.run()
        assert bench.tokens(0) == answers[PROMPT][:max_tokens]
        assert_finished(bench, 0, "length", max_tokens)
        # What was to be fed again is not in them.
        assert check_states(bench, PROMPT, bench.tokens(0)) >= len(PROMPT)


def test_stop_token_inside_an_accepted_run_ends_the_answer_with_exact_caches(model: Habit) -> None:
    sampling = SAMPLINGS["seeded"]
    answers = plain_answers(model, sampling)
    answer = answers[PROMPT]
    for at in first_seen(answer)[1:12:2]:
        bench = Bench(model, drafter_of=readers(answers, "oracle"))
        stops = frozenset({answer[at]})
        bench.submit(0, generation(PROMPT, sampling, stop_tokens=stops))
        bench.run()
        assert bench.tokens(0) == answer[:at]
        assert_finished(bench, 0, "stop_token", at + 1)
        check_states(bench, PROMPT, answer[: at + 1])


@pytest.mark.parametrize("tokens", [9, 10, 12, 15])
def test_cancelled_answer_leaves_exact_caches_and_the_next_turn_is_exact(
    model: Habit, tokens: int
) -> None:
    answers = plain_answers(model, GREEDY)
    bench = Bench(model, drafter_of=readers(answers, "mixed"), longest=2)
    bench.submit(0, generation(PROMPT))
    while len(bench.tokens(0)) < tokens:
        bench.step()
    bench.scheduler.cancel(0)
    second = (*PROMPT, *bench.tokens(0), 7, 8, 9)
    bench.submit(1, generation(second))
    assert bench.events[1][0].cached_tokens >= len(PROMPT)
    plain = Bench(model)
    plain.submit(0, generation(second))
    expected = plain.run().tokens(0)
    assert bench.run().tokens(1) == expected


def test_sequence_joins_another_whose_tokens_are_to_be_fed_again(model: Habit) -> None:
    answers = plain_answers(model, GREEDY)
    for tokens in range(4, 12):
        batch, got = DecodeBatch(model, EverythingFed(longest=3)), {0: [], 1: []}
        for key in (0, 1):
            caches = [cache.merge([cache]) for cache in CacheMaker(model, is_ragged=True)()]
            drafter = readers(answers, "liar")(generation(PROMPTS[key]))
            slot = DecodeSlot(key, [], 30, frozenset(), make_sampler(GREEDY), drafter=drafter)
            batch.add(slot, caches, PROMPTS[key])
            assert not slot.again
            while batch.slots and len(got[key]) < (tokens if key == 0 else 30):
                for step in batch.step():
                    got[step.slot.key] += step.tokens
            assert key or slot.again
        assert [got[key] for key in (0, 1)] == [answers[prompt][:30] for prompt in PROMPTS[:2]]


def test_running_sequence_is_forked_without_what_is_to_be_fed_again(model: Habit) -> None:
    answers = plain_answers(model, GREEDY)
    speculation = Speculation(EverythingFed(longest=3), readers(answers, "liar"))
    make_caches = CacheMaker(model, is_ragged=True)
    backend = BatchBackend(model, make_caches, ChunkSizer(64), speculation=speculation)
    backend.insert(0, generation(PROMPT), None)
    sampled: list[int] = []
    while len(sampled) < 12:
        for outcome in backend.step():
            sampled += getattr(outcome, "tokens", ())
    hit = backend.fork(0, 1000)
    released = backend.remove(0)
    assert hit is not None
    assert released is not None
    assert len(PROMPT) <= hit.cached_tokens == len(released.tokens) < len(PROMPT) + 11
    rest = Generation((*PROMPT, *answers[PROMPT][:20]), 10, sampling=GREEDY)
    backend.insert(1, rest, hit)
    resumed: list[int] = []
    while len(resumed) < 10:
        for outcome in backend.step():
            resumed += getattr(outcome, "tokens", ())
    assert resumed == answers[PROMPT][20:30]


def test_interrupted_answer_resumes_with_the_same_tokens(model: Habit) -> None:
    sampling = SAMPLINGS["seeded"]
    answers = plain_answers(model, sampling)
    bench = Bench(model, drafter_of=readers(answers, "mixed"))
    bench.submit(0, generation(PROMPT, sampling))
    while len(bench.tokens(0)) < 20:
        bench.step()
    bench.scheduler._preempt(bench.scheduler._running[0])
    assert bench.run().tokens(0) == answers[PROMPT]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"model_type": "qwen3_5", **tiny_architectures.GATED_DELTA_NET}
    return tiny_models.build("qwen3", tmp_path_factory.mktemp("qwen3_5"), **sizes)


@pytest.mark.parametrize("kind", ["lookup", "liar"])
def test_answers_with_grammars_and_drafts_equal_those_without(folder: Path, kind: str) -> None:
    policy = EverythingFed()
    plain = GrammarBench(folder)
    speculation = Speculation(policy, DRAFTERS[kind])
    bench = GrammarBench(folder, partial(BatchBackend, speculation=speculation))
    for key in range(4):
        plain.run({key: generations(plain)[key]})
        bench.run({key: generations(bench)[key]})
        assert bench.tokens(key) == plain.tokens(key)
        assert bench.events[key][-1] == plain.events[key][-1]
    assert 40 < policy.accepted < policy.drafted
    plain.close()
    bench.close()
