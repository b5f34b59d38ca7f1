"""Tests the batch adapter and the sampler on real MLX with tiny random models.

They also check the private interface of mlx-lm that the adapter uses.
"""

from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import pytest
from mlx_lm.generate import generate_step
from mlx_lm.sample_utils import make_repetition_penalty

from pensieve.engine.generation import Finished, Generation, ResourceLimits, Sampling, Token
from pensieve.engine.model.batch import BatchBackend
from pensieve.engine.model.cache_maker import CacheMaker, supports_ragged_kv
from pensieve.engine.model.loading import load_weights
from pensieve.engine.model.logits.sampling import make_sampler
from pensieve.engine.model.memory import plan_memory
from pensieve.engine.planning.memory_plan import GB
from pensieve.engine.scheduling.backend import Sampled
from pensieve.engine.scheduling.prefill_chunks import ChunkSizer
from pensieve.engine.scheduling.prefix_cache import PrefixCache
from pensieve.engine.scheduling.request_queue import QueueLimits
from pensieve.engine.scheduling.scheduler import Scheduler
from pensieve.engine.scheduling.tiered_prefix_cache import TieredPrefixCache
from tests.mlx.scheduler_bench import FailingOnce
from tests.support.device import DEVICE

GREEDY = Sampling(temperature=0)
PROMPTS = [tuple(range(3, 3 + length)) for length in (1, 2, 17, 150)]


@pytest.fixture(scope="module")
def model(tiny_folder: Path):
    return load_weights(tiny_folder, DEVICE)


def scheduler_over(model, backend: type[BatchBackend] = BatchBackend) -> Scheduler:
    make_caches = CacheMaker(model, supports_ragged_kv(model))
    chunks = ChunkSizer(64)
    budget = plan_memory(make_caches, DEVICE, ResourceLimits(8 * GB)).budget
    return Scheduler(
        lambda: backend(model, make_caches, chunks),
        TieredPrefixCache(PrefixCache(b"test")),
        budget,
        QueueLimits(max_batch=4, max_waiting=20),
    )


@pytest.fixture
def scheduler(model) -> Iterator[Scheduler]:
    scheduler = scheduler_over(model)
    yield scheduler
    scheduler.close()


def run(scheduler: Scheduler, generations: dict[int, Generation]) -> dict[int, list]:
    """Return the events of each generation; all are submitted together."""
    events: dict[int, list] = {key: [] for key in generations}
    for key, generation in generations.items():
        scheduler.submit(key, generation)
    while not scheduler.is_idle:
        for key, event in scheduler.step():
            events[key].append(event)
    return events


def tokens(events: list) -> list[int]:
    return [event.token_id for event in events if isinstance(event, Token)]


def reference(
    model, prompt: tuple[int, ...], max_tokens: int, penalty: float | None = None
) -> list[int]:
    """Return mlx-lm's own single-sequence greedy answer."""
    processors = [make_repetition_penalty(penalty)] if penalty else []
    steps = generate_step(
        mx.array(prompt), model, max_tokens=max_tokens, logits_processors=processors
    )
    return [int(token) for token, _ in steps]


def test_greedy_answers_equal_mlx_lms_alone_and_in_a_batch(model, scheduler: Scheduler) -> None:
    expected = [reference(model, prompt, 12) for prompt in PROMPTS]
    alone = [
        tokens(run(scheduler, {1: Generation(prompt, 12, sampling=GREEDY)})[1])
        for prompt in PROMPTS
    ]
    together = run(
        scheduler,
        {key: Generation(prompt, 12, sampling=GREEDY) for key, prompt in enumerate(PROMPTS)},
    )
    assert alone == expected
    assert [tokens(together[key]) for key in range(len(PROMPTS))] == expected


def test_more_requests_than_slots_all_get_their_tokens(model, scheduler: Scheduler) -> None:
    generations = {key: Generation(PROMPTS[key % 4], 5, sampling=GREEDY) for key in range(10)}
    events = run(scheduler, generations)
    assert all(tokens(events[key]) == reference(model, PROMPTS[key % 4], 5) for key in range(10))


PENALTIES = (None, 1.1, 1.5, 2.0)


def penalized(penalty: float | None) -> Sampling:
    return Sampling(temperature=0, repetition_penalty=penalty or 1.0)


def test_penalties_per_row_equal_mlx_lms_after_a_failed_step(model) -> None:
    requests = list(zip(PROMPTS, PENALTIES, strict=True))
    expected = [reference(model, prompt, 24, penalty) for prompt, penalty in requests]
    assert expected != [reference(model, prompt, 24) for prompt, _ in requests]
    generations = {
        key: Generation(prompt, 24, sampling=penalized(penalty))
        for key, (prompt, penalty) in enumerate(requests)
    }
    FailingOnce.steps_left = 15
    scheduler = scheduler_over(model, FailingOnce)
    events = run(scheduler, generations)
    scheduler.close()
    assert FailingOnce.steps_left < 0
    assert [tokens(events[key]) for key in range(4)] == expected


def test_penalty_continues_over_a_resumed_answer(model, scheduler: Scheduler) -> None:
    answer = reference(model, PROMPTS[2], 24, 2.0)
    begun = (*PROMPTS[2], *answer[:9])
    rest = Generation(begun, 15, sampling=penalized(2.0), answered_tokens=9)
    assert tokens(run(scheduler, {1: rest})[1]) == answer[9:]


class ChunksOfSixteen(ChunkSizer):
    def next_chunk(self, before: int, *, is_shared: bool) -> int:
        return 16


class CountingModel:
    """Records the number of tokens of each pass."""

    def __init__(self, model) -> None:
        self._model, self.passes = model, []

    def __call__(self, tokens, cache):
        self.passes.append(tokens.shape[1])
        return self._model(tokens, cache=cache)


@pytest.mark.parametrize("length", [15, 16, 17, 32, 33, 40, 47, 48, 49])
def test_step_processes_at_most_one_chunk_including_the_last_tokens(model, length) -> None:
    counted = CountingModel(model)
    backend = BatchBackend(
        counted, CacheMaker(model, supports_ragged_kv(model)), ChunksOfSixteen(64)
    )
    prompt = tuple(range(3, 3 + length))
    backend.insert(1, Generation(prompt, 3, sampling=GREEDY), None)
    sampled: list[int] = []
    while len(sampled) < 3:
        counted.passes.clear()
        for outcome in backend.step():
            sampled += outcome.tokens if isinstance(outcome, Sampled) else ()
        assert sum(tokens for tokens in counted.passes if tokens > 1) <= 16
    backend.close()
    assert sampled == reference(model, prompt, 3)


def test_stop_token_ends_the_answer_and_is_counted(model, scheduler: Scheduler) -> None:
    whole = reference(model, PROMPTS[2], 30)
    stop = next(token for token in whole if token != whole[0]) if len(set(whole)) > 1 else whole[0]
    events = run(scheduler, {1: Generation(PROMPTS[2], 30, frozenset({stop}), sampling=GREEDY)})[1]
    until = whole.index(stop)
    assert tokens(events) == whole[:until]
    assert events[-1] == Finished("stop_token", until + 1)


def conversation(scheduler: Scheduler, first: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Return the second turn's prompt and how much of it was cached."""
    answer = tokens(run(scheduler, {1: Generation(first, 12, sampling=GREEDY)})[1])
    second = (*first, *answer, 7, 8, 9)
    _, started = scheduler.submit(2, Generation(second, 12, sampling=GREEDY))
    scheduler.cancel(2)
    return second, started.cached_tokens


def test_second_turn_over_cached_tokens_equals_uncached(model, scheduler) -> None:
    second, cached_tokens = conversation(scheduler, PROMPTS[3])
    warm = tokens(run(scheduler, {3: Generation(second, 12, sampling=GREEDY)})[3])
    assert cached_tokens == len(second) - 3
    assert warm == reference(model, second, 12)


def test_branch_and_its_trunk_are_exact(model, scheduler) -> None:
    trunk = tuple(range(3, 250)) * 3
    run(scheduler, {1: Generation(trunk, 12, sampling=GREEDY)})
    branch = (*trunk[:300], 5, 6, 7)
    events = run(
        scheduler,
        {
            2: Generation(branch, 12, sampling=GREEDY),
            3: Generation((*trunk, 9), 12, sampling=GREEDY),
        },
    )
    assert tokens(events[2]) == reference(model, branch, 12)
    assert tokens(events[3]) == reference(model, (*trunk, 9), 12)


def test_requests_with_a_shared_prefix_are_exact(model, scheduler) -> None:
    shared = tuple(range(3, 250)) * 2
    prompts = [(*shared, key, key) for key in range(3)]
    events = run(
        scheduler,
        {key: Generation(prompt, 12, sampling=GREEDY) for key, prompt in enumerate(prompts)},
    )
    assert [tokens(events[key]) for key in range(3)] == [
        reference(model, prompt, 12) for prompt in prompts
    ]


def test_seeded_tokens_do_not_depend_on_other_requests(scheduler: Scheduler) -> None:
    seeded = Generation(PROMPTS[1], 10, sampling=Sampling(temperature=1.0, seed=7))
    other = Generation(PROMPTS[2], 10, sampling=Sampling(temperature=1.0))
    alone = tokens(run(scheduler, {1: seeded})[1])
    together = tokens(run(scheduler, {2: other, 1: seeded, 3: other})[1])
    different = tokens(
        run(scheduler, {1: Generation(PROMPTS[1], 10, sampling=Sampling(seed=8))})[1]
    )
    assert alone == together
    assert alone != different


SEEDED = (
    Sampling(temperature=1.0, seed=7),
    Sampling(temperature=0.7, top_p=0.9, seed=7),
    Sampling(temperature=1.3, top_k=40, min_p=0.01, seed=-3),
)


def test_seeded_tokens_are_the_same_alone_and_between_others_that_join_later(model) -> None:
    generations = [Generation(PROMPTS[2], 10, sampling=sampling) for sampling in SEEDED]
    alone = [tokens(run(scheduler_over(model), {1: each})[1]) for each in generations]
    scheduler, drawn = scheduler_over(model), [[], [], []]
    for steps, (key, generation) in zip((3, 1, 40), enumerate(generations), strict=True):
        scheduler.submit(key, generation)
        for _ in range(steps):
            for at, event in scheduler.step():
                drawn[at] += [event.token_id] if isinstance(event, Token) else []
    assert drawn == alone
    assert len({tuple(each) for each in alone}) == 3


def test_seeded_answer_resumed_from_its_tokens_continues_with_the_same_tokens(model) -> None:
    whole = tokens(
        run(scheduler_over(model), {1: Generation(PROMPTS[2], 12, sampling=SEEDED[0])})[1]
    )
    begun = (*PROMPTS[2], *whole[:5])
    rest = Generation(begun, 7, sampling=SEEDED[0], answered_tokens=5)
    assert tokens(run(scheduler_over(model), {1: rest})[1]) == whole[5:]


def test_seeded_rows_of_one_call_equal_calls_position_by_position() -> None:
    sampler = make_sampler(Sampling(seed=3))
    rows = mx.random.normal((6, 50), key=mx.random.key(1))
    together = sampler(rows, 4).tolist()
    assert together == [sampler(rows[at : at + 1], 4 + at).item() for at in range(6)]
    assert together != sampler(rows, 5).tolist()


# The 99.9 % quantile of chi-squared with two degrees of freedom.
CHI_SQUARED = 13.8


def test_seeded_draws_have_the_distribution_of_the_logits() -> None:
    draws, shares = 20_000, (0.5, 0.3, 0.2)
    logits = mx.broadcast_to(mx.log(mx.array(shares)), (draws // 20, 3))
    sampler = make_sampler(Sampling(seed=11))
    drawn = [token for at in range(20) for token in sampler(logits, at * draws // 20).tolist()]
    expected = [draws * share for share in shares]
    surplus = [(drawn.count(at) - each) ** 2 / each for at, each in enumerate(expected)]
    assert len(drawn) == draws
    assert sum(surplus) < CHI_SQUARED


LOGPROBS = mx.log(mx.array([[0.5, 0.25, 0.15, 0.07, 0.03], [0.03, 0.07, 0.15, 0.25, 0.5]]))


@pytest.mark.parametrize(
    ("sampling", "support"),
    [
        (Sampling(temperature=1.0), {0, 1, 2, 3, 4}),
        (Sampling(temperature=1.0, top_k=2), {0, 1}),
        (Sampling(temperature=1.0, top_k=99), {0, 1, 2, 3, 4}),
        (Sampling(temperature=1.0, top_p=0.6), {0, 1}),
        (Sampling(temperature=1.0, top_p=0.01), {0}),
        (Sampling(temperature=1.0, top_k=3, top_p=0.99), {0, 1, 2}),
        # The nucleus is taken after the temperature: hot ones are wide, cold ones narrow.
        (Sampling(temperature=0.3, top_p=0.85), {0}),
        (Sampling(temperature=2.0, top_p=0.6), {0, 1, 2}),
        (Sampling(temperature=0), {0}),
        (Sampling(temperature=1e-6), {0}),
        (Sampling(min_p=0.2), {0, 1, 2}),
        (Sampling(min_p=1.0), {0}),
        (Sampling(min_p=0.2, top_k=2), {0, 1}),
        (Sampling(temperature=0.5, min_p=0.2), {0, 1}),
        (Sampling(temperature=0, min_p=0.01), {0}),
    ],
)
def test_sampler_draws_exactly_the_expected_tokens(sampling: Sampling, support: set[int]) -> None:
    mx.random.seed(1)
    sampler = make_sampler(sampling)
    drawn = [sampler(LOGPROBS).tolist() for _ in range(400)]
    assert {row[0] for row in drawn} == support
    assert {row[1] for row in drawn} == {4 - token for token in support}


def test_equal_unseeded_settings_share_one_sampler() -> None:
    assert make_sampler(Sampling(temperature=0.7)) is make_sampler(Sampling(temperature=0.7))
    assert make_sampler(Sampling(seed=1)) is not make_sampler(Sampling(seed=1))


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": -0.1},
        {"temperature": 2.1},
        {"top_p": 0.0},
        {"top_k": -1},
        {"min_p": 1.1},
        {"min_p": float("nan")},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": float("inf")},
    ],
)
def test_invalid_sampling_values_are_refused(values: dict) -> None:
    with pytest.raises(ValueError, match=r"\d"):
        Sampling(**values)
