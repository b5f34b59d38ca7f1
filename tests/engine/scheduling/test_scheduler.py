"""The scheduler over a backend that counts tokens and raises on demand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.engine.generation import (
    Admitted,
    DraftCounts,
    Drafted,
    Finished,
    Generation,
    Grammar,
    Logprobs,
    Prefilled,
    Priority,
    Requeued,
    Sampling,
    SourceCounts,
    Started,
    Token,
)
from pensieve.engine.planning.memory_plan import KVBudget
from pensieve.engine.protocol import Failed
from pensieve.engine.scheduling.backend import Sampled, SequenceFailed
from pensieve.engine.scheduling.disk_tier import NoDiskTier
from pensieve.engine.scheduling.prefix_cache import Hit, PrefixCache
from pensieve.engine.scheduling.request_queue import MAX_BYPASSES, QueueLimits, Request
from pensieve.engine.scheduling.scheduler import Scheduler
from pensieve.engine.scheduling.tiered_prefix_cache import TieredPrefixCache
from pensieve.errors import GrammarError
from tests.engine.counting_backend import (
    BYTES_PER_TOKEN,
    REFUSED_TOKEN,
    CountingBackend,
    RememberedState,
)

STOP = 0


@dataclass
class CountingDisk(NoDiskTier):
    """A disk tier that has the first `tokens` of any sequence, in parts of 100."""

    tokens: int
    is_broken: bool = False
    parts_read: int = 0

    def match(self, hashes: Sequence[bytes], tokens: Sequence[int]) -> int:
        return min(self.tokens, len(tokens) - 1)

    def acquire(
        self, hashes: Sequence[bytes], tokens: Sequence[int], *, is_use: bool = True
    ) -> "CountingRestore":
        return CountingRestore(self, tuple(tokens[: self.match(hashes, tokens)]))


@dataclass
class CountingRestore:
    disk: CountingDisk
    tokens: tuple[int, ...]
    hit: Hit | None = None
    parts_read: int = 0

    @property
    def is_done(self) -> bool:
        return self.hit is not None

    def step(self) -> None:
        if self.disk.is_broken and self.disk.parts_read:
            raise RuntimeError("no memory")
        self.parts_read += 1
        self.disk.parts_read += 1
        if self.parts_read * 100 >= len(self.tokens):
            self.hit = Hit(RememberedState(self.tokens), len(self.tokens))


@dataclass
class Bench:
    """A scheduler, the backends it made, and the events it sent."""

    is_bad: Callable[[tuple[int, ...]], bool] = lambda tokens: False
    max_batch: int = 4
    max_waiting: int = 100
    vocabulary_size: int = 10**6
    kv_tokens: int = 10**6
    chunk: int = 1000
    disk: CountingDisk | None = None
    trim_step: int = 1
    backends: list[CountingBackend] = field(default_factory=list)
    events: dict[int, list] = field(default_factory=dict)
    admitted: list[int] = field(default_factory=list)
    requeued: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.prefixes = PrefixCache(b"model")
        self.budget = KVBudget(self.kv_tokens * BYTES_PER_TOKEN, BYTES_PER_TOKEN)
        self.scheduler = Scheduler(
            self._make_backend,
            TieredPrefixCache(self.prefixes, self.disk),
            self.budget,
            QueueLimits(self.max_batch, self.max_waiting, self.vocabulary_size),
        )

    def _make_backend(self) -> CountingBackend:
        self.backends.append(CountingBackend(self.is_bad, self.chunk, self.trim_step))
        return self.backends[-1]

    @property
    def processed(self) -> int:
        return sum(backend.processed for backend in self.backends)

    def submit(
        self,
        key: int,
        prompt: tuple[int, ...],
        max_tokens: int = 3,
        priority: Priority = "main",
        client: str = "",
    ) -> None:
        generation = Generation(prompt, max_tokens, priority=priority, client=client)
        self.record([self.scheduler.submit(key, generation)])

    def steps(self, number: int) -> None:
        for _ in range(number):
            self.step()

    def step(self) -> None:
        self.record(self.scheduler.step())
        self.prefixes.check()
        running = sum(
            self.budget.sequence(len(sequence.tokens))
            for sequence in self.backends[-1].sequences.values()
        )
        assert running + self.prefixes.nbytes <= self.budget.kv_bytes

    def record(self, events) -> None:
        for key, event in events:
            if event == Admitted():
                self.admitted.append(key)
            elif event == Requeued():
                self.requeued.append(key)
            else:
                self.events.setdefault(key, []).append(event)

    def run(self, max_steps: int = 500) -> None:
        for _ in range(max_steps):
            if self.scheduler.is_idle:
                return
            self.step()
        raise AssertionError("the scheduler never becomes idle")

    def tokens(self, key: int) -> list[int]:
        return [event.token_id for event in self.events[key] if isinstance(event, Token)]


def expected_tokens(prompt: tuple[int, ...], max_tokens: int) -> list[int]:
    return list(range(len(prompt), len(prompt) + max_tokens))


def test_request_is_started_prefilled_sampled_and_finished_in_order() -> None:
    bench = Bench()
    bench.submit(1, (5, 6))
    bench.run()
    assert bench.events[1] == [
        Started(cached_tokens=0),
        Prefilled(2),
        Token(2),
        Token(3),
        Token(4),
        Finished("length", 3),
    ]


def test_requests_beyond_the_batch_wait_and_are_served() -> None:
    bench = Bench(max_batch=2)
    for key in range(5):
        bench.submit(key, (9,) * (key + 1))
    bench.run()
    assert bench.backends[0].peak == 2
    assert all(bench.tokens(key) == expected_tokens((9,) * (key + 1), 3) for key in range(5))


def test_full_queue_refuses_requests_as_busy() -> None:
    bench = Bench(max_batch=1, max_waiting=1)
    for key in (1, 2, 3):
        bench.submit(key, (1,))
    assert bench.events[2] == [Started(cached_tokens=0)]
    assert bench.events[3] == [Failed("Overloaded: too many requests are waiting.", "busy")]


def test_stop_token_is_not_reported_as_a_token() -> None:
    bench = Bench()
    bench.submit(1, (1,))
    bench.step()
    bench.backends[0].step = lambda: [Sampled(1, (STOP,), "stop_token")]
    bench.step()
    assert bench.events[1][-1] == Finished("stop_token", 1)
    assert bench.tokens(1) == []


LONG = (9,) * 1001


def test_decoding_continues_between_the_parts_of_a_restore() -> None:
    bench = Bench(disk=CountingDisk(1000))
    bench.submit(1, (1,), max_tokens=100)
    bench.steps(3)
    before = len(bench.tokens(1))
    bench.submit(2, LONG)
    bench.steps(10)
    assert bench.disk.parts_read == 10
    assert len(bench.tokens(1)) == before + 10
    bench.run()
    assert bench.processed == 2
    assert bench.tokens(2) == expected_tokens(LONG, 3)
    assert bench.events[2][0] == Started(cached_tokens=1000)


def test_no_other_request_is_admitted_during_a_restore() -> None:
    bench = Bench(disk=CountingDisk(1000))
    bench.submit(1, LONG)
    bench.steps(3)
    bench.submit(2, (1, 2))
    bench.run()
    assert bench.disk.parts_read == 10
    assert bench.tokens(2) == expected_tokens((1, 2), 3)


def test_cancel_during_a_restore_frees_everything() -> None:
    bench = Bench(disk=CountingDisk(1000))
    bench.submit(1, LONG)
    bench.steps(3)
    bench.scheduler.cancel(1)
    assert bench.scheduler.is_idle
    assert bench.scheduler.kv_used_bytes == 0
    bench.submit(2, LONG)
    bench.run()
    assert bench.tokens(2) == expected_tokens(LONG, 3)


@pytest.mark.parametrize("token", [-1, 10, 2**31])
def test_token_outside_the_vocabulary_is_refused_and_others_run(token: int) -> None:
    bench = Bench(vocabulary_size=10)
    bench.submit(1, (9, token, 3))
    bench.submit(2, (9, 0, 3))
    bench.steps(5)
    assert bench.events[1] == [
        Failed("The prompt has a token that the model does not have.", "engine")
    ]
    assert isinstance(bench.events[2][-1], Finished)


def test_cached_tokens_are_reported_once_if_memory_has_about_as_much_as_the_disk() -> None:
    bench = Bench(disk=CountingDisk(1100))
    bench.prefixes.insert(prompt_of(1000), RememberedState(prompt_of(1000)))
    bench.submit(1, prompt_of(2000))
    bench.run()
    assert [event for event in bench.events[1] if isinstance(event, Started)] == [Started(1000)]
    assert bench.disk.parts_read == 0


def test_failed_restore_fails_only_its_own_request() -> None:
    bench = Bench(disk=CountingDisk(1000, is_broken=True))
    bench.submit(1, (1,), max_tokens=20)
    bench.steps(2)
    bench.submit(2, LONG)
    bench.run()
    assert bench.tokens(1) == expected_tokens((1,), 20)
    assert bench.events[2][-1] == Failed("The engine failed on this request: no memory", "engine")


def test_failed_step_during_a_restore_spares_the_restored_request() -> None:
    bench = Bench(is_bad=lambda tokens: len(tokens) == 5, disk=CountingDisk(1000))
    bench.submit(1, (1,), max_tokens=20)
    bench.steps(2)
    bench.submit(2, LONG)
    bench.run()
    assert isinstance(bench.events[1][-1], Failed)
    assert bench.tokens(2) == expected_tokens(LONG, 3)


def test_failed_sequence_fails_alone() -> None:
    bench = Bench()
    bench.submit(1, (1, 2), max_tokens=50)
    bench.submit(2, (3, 4, 5), max_tokens=5)
    bench.steps(3)
    backend = bench.backends[0]
    outcomes = [*backend.step(), SequenceFailed(1, GrammarError("nothing is allowed"))]
    backend.step, steps = lambda: outcomes, backend.step
    bench.step()
    backend.step = steps
    bench.run()
    assert bench.events[1][-2:] == [Token(4), Failed("nothing is allowed", "grammar")]
    assert bench.tokens(2) == expected_tokens((3, 4, 5), 5)
    assert len(bench.backends) == 1


@pytest.mark.parametrize("length", [1, 2, 40, 5000])
@pytest.mark.parametrize("first_tokens", [2, 60])
def test_prompt_of_several_generations_is_processed_once(length: int, first_tokens: int) -> None:
    bench = Bench(max_batch=3)
    for key in range(5):
        max_tokens = first_tokens if key == 0 else 4
        generation = Generation((9,) * length, max_tokens, shares_prompt=True)
        bench.record([bench.scheduler.submit(key, generation)])
    bench.submit(5, (8,) * 30)
    bench.run()
    # Each later one processes the last token. Short prompts are not kept after an answer's end.
    again = 0 if length >= 40 or first_tokens == 60 else 4 * length
    assert bench.processed <= length + 4 + 30 + again
    for key in range(1, 5):
        assert bench.tokens(key) == expected_tokens((9,) * length, 4)


def test_answers_to_one_prompt_leave_a_slot_to_another_request() -> None:
    bench = Bench(max_batch=3)
    for key in range(5):
        shared = Generation((9,) * 40, 50, shares_prompt=True)
        bench.record([bench.scheduler.submit(key, shared)])
    bench.steps(4)
    assert bench.admitted == [0, 1]
    bench.submit(5, (8,) * 30, max_tokens=2)
    bench.steps(3)
    assert bench.tokens(5) == expected_tokens((8,) * 30, 2)
    bench.run()
    assert bench.admitted == [0, 1, 5, 2, 3, 4]
    assert all(bench.tokens(key) == expected_tokens((9,) * 40, 50) for key in range(5))
    assert bench.processed <= 40 + 4 + 30


def test_answers_to_one_prompt_run_one_by_one_in_a_single_slot() -> None:
    bench = Bench(max_batch=1)
    for key in range(2):
        shared = Generation((9,) * 40, 4, shares_prompt=True)
        bench.record([bench.scheduler.submit(key, shared)])
    bench.run()
    assert all(bench.tokens(key) == expected_tokens((9,) * 40, 4) for key in range(2))


def test_failure_without_a_text_names_its_class_and_is_logged_with_its_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()
    bench.backends[0].insert = lambda key, generation, hit: next(iter(()))
    bench.submit(1, (1,))
    bench.run()
    message = "The engine failed on this request: StopIteration"
    assert bench.events[1][-1] == Failed(message, "engine")
    assert [record.message for record in caplog.records] == ["a request failed in the engine"]
    assert "test_scheduler.py" in caplog.text


def test_prompt_of_several_generations_that_cannot_be_trimmed_is_processed_by_each() -> None:
    bench = Bench(trim_step=10**6)
    for key in range(3):
        generation = Generation((9,) * 100, 4, shares_prompt=True)
        bench.record([bench.scheduler.submit(key, generation)])
    bench.run()
    assert all(bench.tokens(key) == expected_tokens((9,) * 100, 4) for key in range(3))


def test_tokens_carry_the_logprobs_of_the_step() -> None:
    bench = Bench()
    bench.submit(1, (1,))
    bench.step()
    one, two = Logprobs(-0.5, ((3, -0.5),)), Logprobs(-1.0)
    bench.backends[0].step = lambda: [
        Sampled(1, (7, 8, STOP), "stop_token", logprobs=(one, two, Logprobs(-3.0)))
    ]
    bench.step()
    assert bench.events[1][-3:] == [Token(7, one), Token(8, two), Finished("stop_token", 3)]


def test_bias_of_a_token_outside_the_vocabulary_is_refused() -> None:
    bench = Bench(vocabulary_size=10)
    biased = Generation((1,), 3, sampling=Sampling(logit_bias=((3, 1.0), (10, 1.0))))
    bench.record([bench.scheduler.submit(1, biased)])
    message = "A bias is for a token that the model does not have."
    assert bench.events[1] == [Failed(message, "engine")]
    assert bench.scheduler.is_idle


def test_continuation_counts_sampled_tokens_as_answered() -> None:
    request = Request(1, 1, Generation((5, 6), 9, frozenset({0}), grammar=Grammar("start: /a/")))
    assert request.continuation() is request.generation
    request.sampled += [7, 8]
    resumed = request.continuation()
    assert (resumed.prompt_tokens, resumed.max_tokens) == ((5, 6, 7, 8), 7)
    assert (resumed.answered_tokens, resumed.grammar) == (2, request.generation.grammar)


@pytest.mark.parametrize("steps_before", [0, 1, 2, 3])
def test_cancelled_request_sends_no_more_events_and_frees_its_slot(steps_before: int) -> None:
    bench = Bench(max_batch=1)
    bench.submit(1, (1,), max_tokens=50)
    bench.submit(2, (1, 2))
    bench.steps(steps_before)
    events_before = list(bench.events[1])
    bench.scheduler.cancel(1)
    bench.run()
    assert bench.events[1] == events_before
    assert bench.tokens(2) == expected_tokens((1, 2), 3)


def test_cancelling_a_finished_request_is_ignored() -> None:
    bench = Bench()
    bench.submit(1, (1,))
    bench.run()
    bench.scheduler.cancel(1)
    assert bench.scheduler.is_idle


def test_request_that_cannot_be_inserted_fails_alone() -> None:
    bench = Bench()
    bench.submit(1, (REFUSED_TOKEN,))
    bench.submit(2, (1, 2))
    bench.run()
    assert bench.events[1][-1] == Failed(
        "The engine failed on this request: a refused token", "engine"
    )
    assert bench.tokens(2) == expected_tokens((1, 2), 3)


prompts = st.lists(
    st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple), min_size=1, max_size=7
)


@given(prompts, st.integers(1, 4), st.integers(1, 6), st.integers(1, 8))
def test_failing_requests_leave_the_tokens_of_others_unchanged(
    prompts: list[tuple[int, ...]], max_batch: int, bad_token: int, bad_length: int
) -> None:
    """A sequence that begins with `bad_token` raises once it has `bad_length` tokens."""

    def is_bad(tokens: tuple[int, ...]) -> bool:
        return bad_token == tokens[0] and len(tokens) >= bad_length

    bench = Bench(is_bad, max_batch=max_batch)
    for key, prompt in enumerate(prompts):
        bench.submit(key, prompt, max_tokens=4)
    bench.run()
    for key, prompt in enumerate(prompts):
        whole = expected_tokens(prompt, 4)
        # The last token is sampled but is never part of a sequence that continues.
        if is_bad((*prompt, *whole[:-1])):
            assert isinstance(bench.events[key][-1], Failed)
            assert bench.tokens(key) == whole[: len(bench.tokens(key))]
        else:
            assert bench.events[key][-1] == Finished("length", 4)
            assert bench.tokens(key) == whole


def test_failed_backends_are_closed() -> None:
    bench = Bench(lambda tokens: tokens[0] == 7)
    bench.submit(1, (7,))
    bench.submit(2, (1,))
    bench.run()
    assert len(bench.backends) > 1
    assert all(backend.is_closed for backend in bench.backends[:-1])


def prompt_of(length: int, seed: int = 0) -> tuple[int, ...]:
    """Different seeds share no prefix."""
    return tuple((seed * 7919 + at * (seed + 1)) % 30_000 for at in range(1, length + 1))


def started(bench: Bench, key: int) -> int:
    assert isinstance(bench.events[key][0], Started)
    return bench.events[key][0].cached_tokens


def test_next_turn_processes_only_its_new_tokens() -> None:
    bench = Bench()
    bench.submit(1, prompt_of(2000))
    bench.run()
    answer = tuple(bench.tokens(1))
    bench.submit(2, prompt_of(2000) + answer + (5, 6, 7, 8))
    bench.run()
    assert started(bench, 2) == 2003
    assert bench.processed == 2004
    assert bench.tokens(2) == [2007, 2008, 2009]


def test_prefill_of_a_cancelled_request_is_cached() -> None:
    bench = Bench(chunk=300)
    bench.submit(1, prompt_of(2000))
    bench.steps(3)
    bench.scheduler.cancel(1)
    bench.submit(2, prompt_of(2000))
    bench.run()
    assert started(bench, 2) == 900
    assert bench.processed == 2000


def test_identical_request_waits_for_the_prefill_and_copies_its_cache() -> None:
    bench = Bench(chunk=300)
    bench.submit(1, prompt_of(3000), max_tokens=50)
    bench.step()
    bench.submit(2, prompt_of(3000), max_tokens=50)
    bench.run()
    assert bench.tokens(1) == bench.tokens(2)
    assert bench.processed == 3001
    # Reported on submit, and again on admission.
    assert [event for event in bench.events[2] if isinstance(event, Started)] == [
        Started(0),
        Started(2999),
    ]


def test_shared_prefix_of_waiting_prompts_is_processed_once() -> None:
    bench = Bench(chunk=500)
    for key in range(4):
        bench.submit(key, prompt_of(3000) + (key,) * 10, max_tokens=50)
    bench.run()
    assert bench.processed == 3000 + 4 * 10


def test_short_prompt_preempts_a_long_prefill() -> None:
    bench = Bench(chunk=200)
    bench.submit(1, prompt_of(20_000))
    bench.steps(3)
    bench.submit(2, prompt_of(100, seed=1))
    bench.steps(5)
    assert isinstance(bench.events[2][-1], Finished)
    bench.run()
    assert bench.processed == 20_100
    assert bench.tokens(1) == expected_tokens(prompt_of(20_000), 3)


def test_long_prompt_is_bypassed_a_bounded_number_of_times() -> None:
    bench = Bench(chunk=200, max_batch=2)
    bench.submit(1, prompt_of(2000))
    bench.step()
    for key in range(2, 30):
        bench.submit(key, prompt_of(20, seed=key), max_tokens=1)
    finished: list[int] = []
    while not bench.scheduler.is_idle:
        bench.step()
        finished += [
            key
            for key, events in bench.events.items()
            if isinstance(events[-1], Finished) and key not in finished
        ]
    assert finished.index(1) <= MAX_BYPASSES + 15


def test_requests_run_in_order_of_priority() -> None:
    bench = Bench(chunk=200, max_batch=1)
    bench.submit(1, prompt_of(900, seed=1), priority="batch")
    bench.submit(2, prompt_of(900, seed=2), priority="side")
    bench.submit(3, prompt_of(900, seed=3), priority="main")
    order: list[int] = []
    while not bench.scheduler.is_idle:
        bench.step()
        order += [key for key in (1, 2, 3) if bench.tokens(key) and key not in order]
    assert order == [3, 2, 1]


def test_client_with_many_requests_does_not_hold_up_one_of_another() -> None:
    bench = Bench(max_batch=1)
    for key in range(10):
        bench.submit(key, prompt_of(50, key), client="a")
    bench.step()
    bench.submit(10, prompt_of(50, 10), client="b")
    bench.run()
    assert bench.admitted[:3] == [0, 10, 1]


def test_once_there_were_several_clients_one_slot_is_left_to_others() -> None:
    bench = Bench(max_batch=3)
    bench.submit(0, prompt_of(50, 0), client="b")
    bench.run()
    for key in range(1, 5):
        bench.submit(key, prompt_of(50, key), max_tokens=50, client="a")
    bench.steps(3)
    assert bench.scheduler.running == 2
    bench.submit(5, prompt_of(50, 5), client="b")
    bench.steps(2)
    assert bench.admitted == [0, 1, 2, 5]


def test_prompt_that_can_never_fit_is_refused() -> None:
    bench = Bench(kv_tokens=1000)
    bench.submit(1, prompt_of(1200))
    assert isinstance(bench.events[1][0], Failed)
    assert bench.events[1][0].kind == "engine"


def test_request_that_does_not_fit_in_memory_waits_for_the_others() -> None:
    bench = Bench(kv_tokens=4096)
    for key in range(4):
        bench.submit(key, prompt_of(2000, seed=key), max_tokens=5)
    bench.run()
    assert bench.backends[0].peak < 4
    assert all(
        bench.tokens(key) == expected_tokens(prompt_of(2000, seed=key), 5) for key in range(4)
    )


def test_answers_that_outgrow_memory_are_preempted_and_lose_no_token() -> None:
    bench = Bench(kv_tokens=4096)
    for key in range(3):
        bench.submit(key, prompt_of(500, seed=key), max_tokens=1500)
    bench.run(max_steps=20_000)
    assert bench.backends[0].peak > 1
    assert all(
        bench.tokens(key) == expected_tokens(prompt_of(500, seed=key), 1500) for key in range(3)
    )


def cached_seeds(bench: Bench) -> set[int]:
    """Return the seeds of `prompt_of` whose sequences are cached."""
    firsts = {prompt_of(1, seed)[0]: seed for seed in range(10)}
    return {firsts[sequence.tokens[0]] for sequence in bench.prefixes.sequences()}


def test_a_prefix_is_evicted_only_for_a_request_that_is_admitted() -> None:
    bench = Bench(kv_tokens=6000, chunk=200)
    bench.submit(1, prompt_of(2000, seed=1))
    bench.run()
    bench.submit(2, prompt_of(2000, seed=2))
    bench.step()
    bench.submit(3, prompt_of(2500, seed=3))
    bench.steps(5)
    assert bench.admitted == [1, 2]
    assert cached_seeds(bench) == {1}
    bench.run()
    assert 1 not in cached_seeds(bench)


def test_a_request_that_is_not_admitted_does_not_keep_its_prefix_from_being_evicted() -> None:
    bench = Bench(kv_tokens=6000)
    for seed in (1, 2):
        bench.submit(seed, prompt_of(2000, seed))
        bench.run()
    bench.submit(3, (*prompt_of(2000, seed=1), 5, 6))
    bench.scheduler.cancel(3)
    bench.submit(4, prompt_of(2000, seed=4))
    bench.run()
    assert cached_seeds(bench) == {2, 4}


def test_prefix_of_an_admitted_request_is_not_evicted_for_it() -> None:
    bench = Bench(kv_tokens=6000)
    for seed in (1, 2):
        bench.submit(seed, prompt_of(2000, seed))
        bench.run()
    bench.submit(3, (*prompt_of(2000, seed=1), *prompt_of(2000, seed=3)))
    bench.run()
    assert bench.processed == 6000
    assert cached_seeds(bench) == {1}


def test_prefix_of_a_request_that_cannot_be_inserted_stays_cached() -> None:
    bench = Bench()
    bench.submit(1, prompt_of(2000))
    bench.run()
    bench.submit(2, (*prompt_of(2000), REFUSED_TOKEN, 5))
    bench.run()
    assert isinstance(bench.events[2][-1], Failed)
    bench.submit(3, (*prompt_of(2000), 5, 6))
    assert started(bench, 3) == 2000


def test_copied_prefix_of_a_request_that_cannot_be_inserted_is_not_cached_again() -> None:
    bench = Bench()
    bench.submit(1, prompt_of(2000))
    bench.run()
    bench.submit(2, (*prompt_of(700), REFUSED_TOKEN, 5))
    bench.run()
    assert isinstance(bench.events[2][-1], Failed)
    assert len(bench.prefixes) == 1


def test_nothing_is_evicted_for_a_request_that_cannot_be_inserted() -> None:
    bench = Bench(kv_tokens=6000)
    for seed in (1, 2):
        bench.submit(seed, prompt_of(2000, seed))
        bench.run()
    bench.submit(3, (*prompt_of(4000, seed=3), REFUSED_TOKEN))
    bench.run()
    assert isinstance(bench.events[3][-1], Failed)
    assert cached_seeds(bench) == {1, 2}


def test_a_request_copies_the_longest_prefix_among_running_sequences() -> None:
    bench = Bench()
    for key, shared in ((1, 600), (2, 2000), (3, 900)):
        bench.submit(key, prompt_of(shared) + prompt_of(300, seed=key), max_tokens=500)
        bench.steps(3)
    before = bench.processed
    bench.submit(4, prompt_of(2500))
    bench.steps(2)
    assert bench.processed - before == 500


@pytest.mark.parametrize(
    ("trim_step", "stored", "expected"),
    [(10_000, 600, 600), (1000, 1200, 1200), (1000, 600, 1000), (800, 600, 1600), (1, 600, 1800)],
)
def test_cached_prefix_is_used_if_running_sequences_give_less(
    trim_step: int, stored: int, expected: int
) -> None:
    bench = Bench(trim_step=trim_step)
    bench.submit(1, prompt_of(1800) + prompt_of(300, seed=2), max_tokens=500)
    bench.steps(5)
    bench.prefixes.insert(prompt_of(stored), RememberedState(prompt_of(stored), trim_step))
    before = bench.processed
    bench.submit(2, prompt_of(2500))
    bench.steps(5)
    assert bench.processed - before == 2500 - expected


def test_side_request_does_not_evict_the_conversation() -> None:
    bench = Bench(kv_tokens=6000)
    bench.submit(1, prompt_of(4000))
    bench.run()
    bench.submit(2, prompt_of(500, seed=9), priority="side")
    bench.run()
    bench.submit(3, (*prompt_of(4000), 1, 2))
    assert started(bench, 3) == 4000


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.integers(1, 1500),
            st.integers(1, 400),
            st.sampled_from(["main", "agent", "side", "batch"]),
            st.integers(0, 6),
        ),
        min_size=1,
        max_size=12,
    ),
    st.integers(2000, 9000),
    st.integers(1, 4),
    st.sampled_from([0, 700, 1400]),
)
def test_any_mix_of_requests_stays_within_memory_with_exact_answers(
    calls: list[tuple[int, int, int, Priority, int]], kv_tokens: int, max_batch: int, on_disk: int
) -> None:
    """Prompts from four families share beginnings; some calls are cancelled a few steps later."""
    bench = Bench(kv_tokens=kv_tokens, max_batch=max_batch, chunk=256, disk=CountingDisk(on_disk))
    cancelled: set[int] = set()
    for key, (seed, length, max_tokens, priority, steps) in enumerate(calls):
        bench.submit(key, prompt_of(length, seed), max_tokens, priority)
        for _ in range(steps):
            if not bench.scheduler.is_idle:
                bench.step()
        if steps == 6:
            bench.scheduler.cancel(key)
            cancelled.add(key)
    bench.run(max_steps=50_000)
    for key, (seed, length, max_tokens, *_) in enumerate(calls):
        if key in cancelled or isinstance(bench.events[key][0], Failed):
            continue
        fitting = min(max_tokens, bench.budget.context_tokens - length)
        assert bench.events[key][-1] == Finished("length", fitting)
        assert bench.tokens(key) == expected_tokens(prompt_of(length, seed), fitting)


# Admission


def test_admission_is_reported_before_the_prefill_begins() -> None:
    bench = Bench()
    bench.submit(1, (5, 6))
    assert bench.scheduler.admit() == [(1, Admitted())]
    assert bench.processed == 0
    assert bench.scheduler.advance() == [(1, Prefilled(2))]


def test_request_that_must_run_alone_runs_alone_to_its_end() -> None:
    bench = Bench()
    bench.submit(1, (1, 2), max_tokens=5)
    suspect = Generation((3, 4, 5), 5, runs_alone=True)
    bench.record([bench.scheduler.submit(2, suspect)])
    bench.submit(3, (6,), max_tokens=5)
    bench.run()
    assert bench.backends[0].peak == 1
    assert bench.admitted == [1, 2, 3]
    assert bench.tokens(2) == expected_tokens((3, 4, 5), 5)


class DraftingBackend(CountingBackend):
    """Every step of a sequence has two drafts, one of them accepted."""

    def step(self) -> list:
        drafts = DraftCounts(lookup=SourceCounts(2, 1))
        return [
            replace(outcome, drafts=drafts) if isinstance(outcome, Sampled) else outcome
            for outcome in super().step()
        ]


def drafts_of(bench: Bench, key: int) -> list[SourceCounts]:
    """Return the counts that were reported, in order."""
    return [event.drafts.lookup for event in bench.events[key] if isinstance(event, Drafted)]


def test_drafts_of_an_answer_are_reported_with_each_step_also_after_a_preemption() -> None:
    bench = Bench()
    bench.scheduler = Scheduler(
        DraftingBackend, TieredPrefixCache(bench.prefixes), bench.budget, QueueLimits()
    )
    for key, max_tokens in ((1, 8), (2, 4)):
        bench.record([bench.scheduler.submit(key, Generation((key, 5), max_tokens))])
    for _ in range(4):
        bench.record(bench.scheduler.step())
    bench.scheduler._preempt(bench.scheduler._running[1])
    while not bench.scheduler.is_idle:
        bench.record(bench.scheduler.step())
    assert drafts_of(bench, 1) == [SourceCounts(2 * step, step) for step in range(1, 9)]
    assert drafts_of(bench, 2)[-1] == SourceCounts(8, 4)
    assert [type(event) for event in bench.events[1][-3:]] == [Drafted, Token, Finished]
    assert bench.scheduler.drafts == DraftCounts(lookup=SourceCounts(24, 12))


def test_tokens_per_step_are_those_of_all_answers() -> None:
    bench = Bench()
    assert bench.scheduler.tokens_per_step == 0.0
    bench.submit(1, (1, 2), max_tokens=3)
    bench.run()
    assert bench.scheduler.tokens_per_step == 1.0
    assert bench.events[1][-1] == Finished("length", 3)


# Bursts


def burst(bench: Bench, lengths: Sequence[int], priority: Priority = "main") -> dict[int, tuple]:
    """Submit prompts of these lengths; return them by key."""
    prompts = {key: prompt_of(length, seed=key) for key, length in enumerate(lengths, 1)}
    for key, prompt in prompts.items():
        bench.submit(key, prompt, priority=priority)
    return prompts


def prefilled(bench: Bench) -> list[int]:
    """Return the keys of all requests whose prompt is processed."""
    return [
        key for key, events in bench.events.items() if any(isinstance(e, Prefilled) for e in events)
    ]


def test_short_prompts_that_arrive_together_are_processed_in_one_step_in_order() -> None:
    bench = Bench()
    prompts = burst(bench, [40, 70, 50, 60])
    bench.step()
    assert bench.admitted == [1, 2, 3, 4]
    assert prefilled(bench) == [1, 2, 3, 4]
    bench.step()
    assert all(bench.tokens(key) == [len(prompt)] for key, prompt in prompts.items())
    bench.run()
    assert all(bench.tokens(key) == expected_tokens(prompts[key], 3) for key in prompts)


def test_answer_gets_a_token_in_every_step_of_a_burst() -> None:
    bench = Bench(chunk=100, max_batch=8)
    bench.submit(9, (5,), max_tokens=100)
    bench.steps(2)
    burst(bench, [40, 70, 50, 60, 90])
    before = len(bench.tokens(9))
    # Of 100 tokens at most: 40, 70, 50 and the beginning of none, 60, 90.
    for steps, expected in enumerate([[1], [1, 2], [1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4, 5]], 1):
        bench.step()
        assert [key for key in prefilled(bench) if key != 9] == expected
        assert len(bench.tokens(9)) == before + steps


def test_prompts_in_prefill_together_are_shorter_than_a_long_prompt() -> None:
    bench = Bench(chunk=100, max_batch=8)
    burst(bench, [300, 300, 300, 300])
    bench.step()
    assert bench.admitted == [1, 2, 3]
    bench.run()
    assert bench.admitted == [1, 2, 3, 4]
    assert bench.requeued == []


def test_request_of_lower_priority_does_not_join_a_prefill() -> None:
    bench = Bench(chunk=50)
    bench.submit(1, prompt_of(100, seed=1))
    bench.submit(2, prompt_of(20, seed=2), priority="side")
    bench.step()
    assert bench.admitted == [1]
    bench.run()
    assert bench.admitted == [1, 2]


def test_request_of_higher_priority_preempts_all_prompts_in_prefill() -> None:
    bench = Bench(chunk=50)
    prompts = burst(bench, [100, 100, 100], "side")
    bench.step()
    bench.submit(4, prompt_of(20, seed=4))
    bench.step()
    assert bench.admitted == [1, 2, 3, 4]
    assert bench.requeued == [1, 2, 3]
    assert prefilled(bench)[-1] == 4
    bench.run()
    assert bench.admitted == [1, 2, 3, 4, 1, 2, 3]
    assert all(bench.tokens(key) == expected_tokens(prompts[key], 3) for key in prompts)


def test_prompt_that_fails_in_a_shared_step_fails_alone_and_the_others_are_answered() -> None:
    prompts = {key: prompt_of(40, seed=key) for key in (1, 2, 3)}
    bench = Bench(is_bad=lambda tokens: tokens[:40] == prompts[2])
    burst(bench, [40, 40, 40])
    bench.run()
    assert bench.backends[0].peak == 3
    assert bench.requeued == [1, 2, 3]
    assert isinstance(bench.events[2][-1], Failed)
    assert all(bench.tokens(key) == expected_tokens(prompts[key], 3) for key in (1, 3))


def test_prompt_cancelled_in_a_shared_prefill_leaves_the_others() -> None:
    bench = Bench(chunk=50)
    prompts = burst(bench, [100, 100, 100])
    bench.step()
    bench.scheduler.cancel(2)
    bench.run()
    assert bench.tokens(2) == []
    assert all(bench.tokens(key) == expected_tokens(prompts[key], 3) for key in (1, 3))


def test_prompt_joins_others_in_prefill_with_its_prefix_from_disk() -> None:
    bench = Bench(disk=CountingDisk(990), chunk=10)
    bench.submit(1, (7,) * 40)
    bench.step()
    bench.submit(2, prompt_of(1000))
    bench.step()
    bench.submit(3, (8,) * 20)
    bench.run()
    assert bench.admitted == [1, 2, 3]
    assert bench.requeued == []
    assert bench.processed < 1000
    assert bench.tokens(2) == expected_tokens(prompt_of(1000), 3)


def test_preempted_answer_is_reported_as_waiting() -> None:
    bench = Bench(kv_tokens=4096)
    for key in range(3):
        bench.submit(key, prompt_of(500, seed=key), max_tokens=1500)
    bench.run(max_steps=20_000)
    assert set(bench.requeued) <= {1, 2}
    assert sorted(bench.admitted) == sorted([0, 1, 2, *bench.requeued])
    assert bench.requeued


def test_preemptions_and_prompt_tokens_are_counted() -> None:
    bench = Bench(chunk=100)
    scheduler = bench.scheduler
    bench.submit(1, (1,) * 2000)
    bench.steps(2)
    assert (scheduler.prefilled_tokens, scheduler.preempted, scheduler.running) == (200, 0, 1)
    bench.submit(2, (2,) * 50)
    bench.steps(1)
    assert (scheduler.prefilled_tokens, scheduler.preempted, scheduler.queued) == (250, 1, 1)
    bench.run()
    assert (scheduler.prefilled_tokens, scheduler.preempted) == (2050, 1)
    assert (scheduler.queued, scheduler.running) == (0, 0)
