"""Tests decoding with drafts on tiny models with a habit: the tokens are those without drafts.

The drafts come from sources that know the answer, and are right, wrong or either; and from the real
index. Every draft is fed, whatever the policy would say.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import mlx.core as mx
import pytest

from pensieve.engine.generation import (
    NO_DRAFTS,
    Drafted,
    Finished,
    Generation,
    ResourceLimits,
    Sampling,
    SourceCounts,
    Started,
    Token,
)
from pensieve.engine.model.batch import BatchBackend
from pensieve.engine.model.cache_maker import CacheMaker, supports_ragged_kv
from pensieve.engine.model.decode_batch import DecodeBatch, read
from pensieve.engine.model.decode_slot import DecodeSlot
from pensieve.engine.model.logits.sampling import make_sampler
from pensieve.engine.model.memory import plan_memory
from pensieve.engine.planning.kv_precision import FULL, KVPrecision
from pensieve.engine.planning.memory_plan import GB
from pensieve.engine.scheduling.prefill_chunks import ChunkSizer
from pensieve.engine.scheduling.prefix_cache import PrefixCache
from pensieve.engine.scheduling.request_queue import QueueLimits
from pensieve.engine.scheduling.scheduler import Scheduler
from pensieve.engine.scheduling.tiered_prefix_cache import TieredPrefixCache
from pensieve.engine.speculation.draft_source import DraftHead, Proposal
from pensieve.engine.speculation.drafter import Drafter, Speculation
from pensieve.engine.speculation.lookup_index import LookupIndex
from pensieve.engine.speculation.policy import Row, StepPlan
from tests.support import tiny_architectures
from tests.support.device import DEVICE

GREEDY = Sampling(temperature=0)
SAMPLINGS = {
    "greedy": GREEDY,
    "seeded": Sampling(temperature=1.0, seed=5),
    "top_p": Sampling(temperature=0.8, top_p=0.9, top_k=40, seed=6),
    "penalty": Sampling(temperature=0, repetition_penalty=1.3),
}
PRECISIONS = {"16": FULL, "8": KVPrecision(8, 32), "4": KVPrecision(4, 32)}
ANSWER_TOKENS = 48
PROMPTS = [
    tuple((at * at * seed + 3 * at) % 211 for at in range(length))
    for seed, length in ((1, 50), (2, 7), (5, 90))
]


class Habit:
    """A random model in which a token mostly follows the same one, so that its answers recur."""

    def __init__(self, model, strength: int = 12) -> None:
        vocabulary = model(mx.array([[1]])).shape[-1]
        self._model = model
        self._habits = strength * mx.random.normal((vocabulary, vocabulary), key=mx.random.key(7))
        self.vocabulary = vocabulary
        self.passes: list[tuple[int, ...]] = []
        self.answers: dict = {}  # without drafts

    def __getattr__(self, name: str):
        return getattr(self._model, name)

    def __call__(self, tokens, cache):
        self.passes.append(tuple(tokens.shape))
        return self._model(tokens, cache=cache) + self._habits[tokens]


@pytest.fixture(scope="module", params=["llama", "phi3", "gemma3_text", "gpt_oss"])
def model(request: pytest.FixtureRequest) -> Habit:
    # Gemma's logits are larger.
    strength = 40 if request.param == "gemma3_text" else 12
    return Habit(tiny_architectures.build(request.param), strength)


@dataclass
class Reader:
    """A draft source that knows the answer; `distort` makes its drafts wrong."""

    answer: Sequence[int]
    distort: Callable[[int, int], int]  # of position and token
    position: int = 0

    def extend(self, tokens: Sequence[int]) -> None:
        self.position += len(tokens)

    def propose(self, after: Sequence[int], max_tokens: int) -> Proposal:
        start = self.position + len(after)
        known = list(enumerate(self.answer))[start : start + max_tokens]
        return Proposal("lookup", tuple(self.distort(at, token) for at, token in known), 32)


DISTORTIONS: dict[str, Callable[[int, int], int]] = {
    "oracle": lambda _, token: token,
    "liar": lambda _, token: (token + 1) % 200,
    "mixed": lambda at, token: token if at % 7 else (token + 1) % 200,
}


@dataclass
class EverythingFed:
    """A policy without prices: feeds drafts up to a number."""

    longest: int = 6
    plans: list[StepPlan] = field(default_factory=list)
    settled: list[tuple[StepPlan, list[Row]]] = field(default_factory=list)
    seconds: list[float | None] = field(default_factory=list)

    def plan(self, rows: Sequence[Row], context_tokens: int) -> StepPlan:
        assert context_tokens > 0
        self.plans.append(StepPlan(tuple(min(len(row.draft), self.longest) for row in rows)))
        return self.plans[-1]

    def prefers_head(self, plan: StepPlan, row: Row) -> bool:
        return not any(plan.drafts)

    def settle(self, plan: StepPlan, rows: Sequence[Row], seconds: float | None) -> None:
        self.settled.append((plan, list(rows)))
        self.seconds.append(seconds)

    @property
    def drafted(self) -> int:
        return sum(sum(plan.drafts) for plan in self.plans)

    @property
    def accepted(self) -> int:
        return sum(row.accepted for _, rows in self.settled for row in rows)


class Bench:
    """A scheduler over a model, and the events of its generations."""

    def __init__(
        self,
        model: Habit,
        precision: KVPrecision = FULL,
        drafter_of: Callable[[Generation], Drafter] | None = None,
        longest: int = 6,
        head: DraftHead | None = None,
    ) -> None:
        self.model, self.policy = model, EverythingFed(longest)
        self.make_caches = CacheMaker(model, supports_ragged_kv(model), precision)
        speculation = Speculation(self.policy, drafter_of, head) if drafter_of else None
        chunks = ChunkSizer(64)
        self.prefixes = PrefixCache(b"test")
        self.scheduler = Scheduler(
            lambda: BatchBackend(model, self.make_caches, chunks, speculation=speculation),
            TieredPrefixCache(self.prefixes),
            plan_memory(self.make_caches, DEVICE, ResourceLimits(8 * GB)).budget,
            QueueLimits(max_batch=4, max_waiting=20),
        )
        self.events: dict[int, list] = {}

    def submit(self, key: int, generation: Generation) -> None:
        self.events[key] = [self.scheduler.submit(key, generation)[1]]

    def step(self) -> None:
        for key, event in self.scheduler.step():
            self.events[key].append(event)

    def run(self) -> "Bench":
        while not self.scheduler.is_idle:
            self.step()
        self.prefixes.check()
        return self

    def tokens(self, key: int) -> list[int]:
        return [event.token_id for event in self.events[key] if isinstance(event, Token)]


def generation(prompt: tuple[int, ...], sampling: Sampling = GREEDY, **more) -> Generation:
    return Generation(prompt, more.pop("max_tokens", ANSWER_TOKENS), sampling=sampling, **more)


def plain_answers(
    model: Habit, sampling: Sampling, precision: KVPrecision = FULL
) -> dict[tuple[int, ...], list[int]]:
    """Return the answer to each prompt without drafts, alone."""
    answers = model.answers.setdefault((sampling, precision), {})
    for prompt in PROMPTS if not answers else ():
        bench = Bench(model, precision)
        bench.submit(1, generation(prompt, sampling))
        answers[prompt] = bench.run().tokens(1)
    return answers


def readers(
    answers: dict[tuple[int, ...], list[int]], kind: str
) -> Callable[[Generation], Drafter]:
    """Return drafters that know the answers, also those of resumed generations."""

    def drafter_of(generation: Generation) -> Drafter:
        prompt = generation.prompt_tokens
        known = next(each for each in answers if prompt[: len(each)] == each)
        reader = Reader(answers[known], DISTORTIONS[kind], len(prompt) - len(known))
        return Drafter([reader])

    return drafter_of


def lookups(model: Habit) -> Callable[[Generation], Drafter]:
    def drafter_of(generation: Generation) -> Drafter:
        index = LookupIndex(model.vocabulary)
        index.extend(generation.prompt_tokens)
        return Drafter([index])

    return drafter_of


# PENSIEVE_EVERY=1 tries them all.
CASES = [
    ("greedy", "16"),
    ("seeded", "16"),
    ("top_p", "4"),
    ("penalty", "16"),
    ("seeded", "8"),
    ("top_p", "16"),
][:: int(os.environ.get("PENSIEVE_EVERY", "2"))]


@pytest.mark.parametrize(("sampling", "precision"), CASES)
def test_tokens_with_drafts_equal_those_without_alone_and_in_a_changing_batch(
    model: Habit, sampling: str, precision: str
) -> None:
    chosen, stored = SAMPLINGS[sampling], PRECISIONS[precision]
    answers = plain_answers(model, chosen, stored)
    for kind in (*DISTORTIONS, "lookup"):
        drafter_of = lookups(model) if kind == "lookup" else readers(answers, kind)
        alone = Bench(model, stored, drafter_of)
        alone.submit(0, generation(PROMPTS[0], chosen))
        assert alone.run().tokens(0) == answers[PROMPTS[0]], kind
        check_counts(alone)
        bench = Bench(model, stored, drafter_of)
        for key, prompt in enumerate(PROMPTS):
            bench.submit(key, generation(prompt, chosen, max_tokens=ANSWER_TOKENS - 16 * key))
            for _ in range(3):
                bench.step()
        bench.run()
        check_counts(bench)
        for key, prompt in enumerate(PROMPTS):
            assert bench.tokens(key) == answers[prompt][: ANSWER_TOKENS - 16 * key], kind
        if kind == "lookup" and sampling != "greedy":
            continue  # little recurs
        assert bench.policy.drafted
        assert (bench.policy.accepted > 0) == (kind != "liar")


def check_counts(bench: Bench) -> None:
    """Compare the counts of finished answers, and of all together, with what was fed."""
    counts = [
        next((event.drafts for event in reversed(events) if isinstance(event, Drafted)), NO_DRAFTS)
        for events in bench.events.values()
    ]
    assert sum((count.lookup for count in counts), SourceCounts()) == SourceCounts(
        bench.policy.drafted, bench.policy.accepted
    )
    assert sum(counts, NO_DRAFTS) == bench.scheduler.drafts


def test_right_drafts_need_a_seventh_of_the_passes(model: Habit) -> None:
    answers = plain_answers(model, GREEDY)
    bench = Bench(model, drafter_of=readers(answers, "oracle"))
    bench.submit(0, generation(PROMPTS[0]))
    model.passes.clear()
    bench.run()
    # The prompt, the guess, and seven tokens a pass.
    assert len(model.passes) <= 2 + -(-ANSWER_TOKENS // 7)
    assert bench.scheduler.tokens_per_step == pytest.approx(ANSWER_TOKENS / len(model.passes), 0.2)
    assert bench.policy.accepted == bench.policy.drafted > 32


@pytest.mark.parametrize("max_tokens", range(1, 12))
def test_answer_has_exactly_the_allowed_tokens(model: Habit, max_tokens: int) -> None:
    answers = plain_answers(model, GREEDY)
    bench = Bench(model, drafter_of=readers(answers, "oracle"))
    for key, prompt in enumerate(PROMPTS[:2]):
        bench.submit(key, generation(prompt, max_tokens=max_tokens + key))
    bench.run()
    for key, prompt in enumerate(PROMPTS[:2]):
        assert bench.tokens(key) == answers[prompt][: max_tokens + key]
        assert_finished(bench, key, "length", max_tokens + key)


def assert_finished(bench: Bench, key: int, reason: str, tokens: int) -> None:
    last = bench.events[key][-1]
    assert isinstance(last, Finished)
    assert (last.reason, last.output_tokens) == (reason, tokens)


def first_seen(answer: list[int]) -> list[int]:
    """Return the positions of tokens that did not occur before."""
    return [at for at, token in enumerate(answer) if token not in answer[:at]]


def test_stop_token_inside_an_accepted_run_ends_the_answer(model: Habit) -> None:
    sampling = SAMPLINGS["seeded"]
    answers = plain_answers(model, sampling)
    answer = answers[PROMPTS[0]]
    for at in first_seen(answer)[1:12]:
        bench = Bench(model, drafter_of=readers(answers, "oracle"))
        stops = frozenset({answer[at]})
        bench.submit(0, generation(PROMPTS[0], sampling, stop_tokens=stops))
        bench.run()
        assert bench.tokens(0) == answer[:at]
        assert_finished(bench, 0, "stop_token", at + 1)


def check_caches(bench: Bench, prompt: tuple[int, ...], answer: list[int]) -> int:
    """Compare the cached state of a finished answer with a fresh prefill's; return its length."""
    tokens = (*prompt, *answer)
    restore = bench.scheduler._prefix_cache.acquire((*tokens, 1))
    while not restore.is_done:
        restore.step()
    assert restore.hit is not None
    held = restore.hit.cached_tokens
    fresh = bench.make_caches()
    merged = [cache.merge([cache]) for cache in fresh]
    bench.model(mx.array([tokens[:held]]), cache=merged)
    for cache, expected in zip(restore.hit.state.caches, fresh, strict=True):
        expected.trim(0)
        assert cache.size() == held
        first = max(getattr(one, "start", 0) for one in (cache, expected))  # after dropped ones
        assert held - first >= min(held, getattr(cache, "max_size", held))
        assert first or cache.nbytes == expected.nbytes
        for one, other in zip(cache.arrays(first, held), expected.arrays(first, held), strict=True):
            assert mx.allclose(one, other, rtol=1e-3, atol=1e-4).item()
    return held


@pytest.mark.parametrize("kind", ["oracle", "liar", "mixed"])
def test_caches_of_finished_answers_equal_a_fresh_prefills(model: Habit, kind: str) -> None:
    sampling = SAMPLINGS["seeded"]
    answers = plain_answers(model, sampling)
    stop = answers[PROMPTS[2]][first_seen(answers[PROMPTS[2]])[5]]
    bench = Bench(model, drafter_of=readers(answers, kind))
    bench.submit(0, generation(PROMPTS[0], sampling))
    bench.submit(1, generation(PROMPTS[2], sampling, stop_tokens=frozenset({stop})))
    bench.run()
    for key, prompt in enumerate((PROMPTS[0], PROMPTS[2])):
        answer = bench.tokens(key)
        assert answer == answers[prompt][: len(answer)]
        # The last token is not fed if it was read in the pass that drew it.
        assert check_caches(bench, prompt, answer) >= len(prompt) + len(answer) - 1


def test_next_turn_after_a_drafted_answer_reuses_it_and_is_exact(model: Habit) -> None:
    answers = plain_answers(model, GREEDY)
    bench = Bench(model, drafter_of=readers(answers, "oracle"))
    bench.submit(0, generation(PROMPTS[0]))
    answer = bench.run().tokens(0)
    second = (*PROMPTS[0], *answer, 7, 8, 9)
    bench.submit(1, generation(second))
    assert bench.events[1][0].cached_tokens >= len(second) - 4
    plain = Bench(model)
    plain.submit(0, generation(second))
    assert bench.run().tokens(1) == plain.run().tokens(0)


def test_sequence_cancelled_in_mid_run_leaves_exact_caches_and_others_unchanged(
    model: Habit,
) -> None:
    answers = plain_answers(model, GREEDY)
    bench = Bench(model, drafter_of=readers(answers, "mixed"))
    for key, prompt in enumerate(PROMPTS):
        bench.submit(key, generation(prompt))
    while len(bench.tokens(0)) < 20 or not bench.tokens(2):
        bench.step()
    bench.scheduler.cancel(0)
    cut = bench.tokens(0)
    bench.run()
    assert cut == answers[PROMPTS[0]][: len(cut)]
    assert [bench.tokens(key) for key in (1, 2)] == [answers[prompt] for prompt in PROMPTS[1:]]
    assert check_caches(bench, PROMPTS[0], cut) >= len(PROMPTS[0]) + len(cut) - 1


def test_sequence_forked_in_mid_run_is_exact_like_its_copy(model: Habit) -> None:
    long = PROMPTS[2] * 4
    plain = Bench(model)
    plain.submit(0, generation(long))
    answers = {long: plain.run().tokens(0)}
    bench = Bench(model, drafter_of=readers(answers, "mixed"))
    bench.submit(0, generation(long))
    while len(bench.tokens(0)) < 20:
        bench.step()
    begun = (*long, *answers[long][:15])
    bench.submit(1, generation(begun, max_tokens=ANSWER_TOKENS - 15, answered_tokens=15))
    bench.step()
    started = [event for event in bench.events[1] if isinstance(event, Started)]
    assert started[-1].cached_tokens > len(long)
    bench.run()
    assert bench.tokens(0) == answers[long]
    assert bench.tokens(1) == answers[long][15:]


def test_interrupted_answer_resumes_with_the_same_tokens(model: Habit) -> None:
    sampling = SAMPLINGS["seeded"]
    answers = plain_answers(model, sampling)
    bench = Bench(model, drafter_of=readers(answers, "mixed"))
    bench.submit(0, generation(PROMPTS[0], sampling))
    while len(bench.tokens(0)) < 20:
        bench.step()
    bench.scheduler._preempt(bench.scheduler._running[0])
    assert bench.run().tokens(0) == answers[PROMPTS[0]]


def test_every_pass_is_settled_in_order_with_its_building_and_the_time_since_the_read_before(
    model: Habit,
) -> None:
    policy = EverythingFed(longest=3)
    answers = plain_answers(model, GREEDY)
    built, waited = len(model.passes), 0.0

    def clock() -> float:
        return len(model.passes) - built + waited

    def wait_and_read(tokens: mx.array) -> list[int]:
        nonlocal waited
        waited += 10.0
        return read(tokens)

    batch = DecodeBatch(model, policy, wait_and_read, clock)
    for prompt in PROMPTS[:2]:
        caches = [cache.merge([cache]) for cache in CacheMaker(model, is_ragged=True)()]
        drafter = readers(answers, "mixed")(generation(prompt))
        slot = DecodeSlot(0, [], 20, frozenset(), make_sampler(GREEDY), drafter=drafter)
        batch.add(slot, caches, prompt)
    while batch.slots:
        batch.step()
    settled = [plan for plan, _ in policy.settled]
    assert settled == policy.plans[: len(settled)]
    # The last pass of all is not needed, unless a draft was in it.
    assert len(policy.plans) - len(settled) <= 1
    # Without a time: plain passes after one that was read at once, built when nothing else ran.
    assert set(policy.seconds) == {11.0, None}
    pairs = list(zip(settled, policy.seconds, strict=True))
    assert not any(sum(plan.drafts) for plan, seconds in pairs if seconds is None)
    assert any(row.accepted < len(row.draft) for _, rows in policy.settled for row in rows)


class Shapes:
    """Counts a batch's passes, draws and reads, and the operations of each draw's graph."""

    def __init__(self, model: Habit) -> None:
        self.model, self.reads, self.draws = model, 0, []
        model.passes.clear()

    def read(self, tokens: mx.array) -> list[int]:
        self.reads += 1
        return read(tokens)

    def sampler(self, logits: mx.array, position: int = 0) -> mx.array:
        drawn = mx.argmax(logits, axis=-1)
        self.draws.append(operations(drawn))
        mx.eval(drawn)  # what is computed yet would be counted or not, by chance
        return drawn


def operations(result: mx.array) -> int:
    """Return the number of operations in the graph of a result that is not evaluated yet."""
    import io

    graph = io.StringIO()
    mx.export_to_dot(graph, result)
    return graph.getvalue().count("shape=rectangle") or graph.getvalue().count("label")


def prefilled_batch(model: Habit, shapes: Shapes, policy: EverythingFed | None) -> DecodeBatch:
    batch, sampler = DecodeBatch(model, policy, shapes.read), shapes.sampler
    for key, prompt in enumerate(PROMPTS):
        caches = [cache.merge([cache]) for cache in CacheMaker(model, is_ragged=True)()]
        batch.add(DecodeSlot(key, [], 100, frozenset(), sampler), caches, prompt)
    return batch


def test_without_drafts_a_step_is_one_pass_one_draw_and_one_read_as_with_no_policy(
    model: Habit,
) -> None:
    counted = []
    for policy in (None, EverythingFed()):
        shapes = Shapes(model)
        batch = prefilled_batch(model, shapes, policy)
        for _ in range(20):
            assert len(batch.step()) == len(PROMPTS)
        counted.append((list(model.passes), shapes.draws, shapes.reads))
    passes, draws, reads = counted[0]
    assert counted[1] == counted[0]
    assert passes[len(PROMPTS) :] == [(len(PROMPTS), 1)] * 20
    assert len(draws) == len(PROMPTS) + 20
    assert reads == 20
    assert draws[-1] == expected_operations(model)


def expected_operations(model: Habit) -> int:
    """Return the operations of mlx-lm's pass over our caches and of one draw."""
    shapes = Shapes(model)
    caches = [
        cache.merge([cache, *others])
        for cache, *others in zip(*[filled(model, prompt) for prompt in PROMPTS], strict=True)
    ]
    last = mx.array([1, 2, 3])
    mx.eval([cache.state for cache in caches], last)
    shapes.sampler(model(last[:, None], cache=caches)[:, -1, :])
    return shapes.draws[-1]


def filled(model: Habit, prompt: tuple[int, ...]) -> list:
    caches = CacheMaker(model, is_ragged=True)()
    model(mx.array([prompt]), cache=[cache.merge([cache]) for cache in caches])
    return caches


# The 99.9 % quantile of chi-squared with two degrees of freedom.
CHI_SQUARED = 13.8
SHARES = (0.6, 0.3, 0.1)
DRAWS = 20_000


class ThreeTokens:
    """A model without caches: its tokens do not depend on what it is fed."""

    def __call__(self, tokens, cache):
        return mx.broadcast_to(mx.log(mx.array(SHARES)), (*tokens.shape, 3))


@dataclass
class Constant:
    drafts: tuple[int, ...]

    def extend(self, tokens: Sequence[int]) -> None:
        pass

    def propose(self, after: Sequence[int], max_tokens: int) -> Proposal:
        return Proposal("constant", self.drafts[:max_tokens])


# Those with a seed and without drafts are in test_batch.py.
@pytest.mark.parametrize(
    ("seed", "drafts"), [(None, ()), (None, (0, 1, 0, 0, 2, 0)), (3, (0, 1, 0, 0, 2, 0))]
)
def test_twenty_thousand_draws_have_the_models_distribution(
    seed: int | None, drafts: tuple[int, ...]
) -> None:
    mx.random.seed(4)
    policy = EverythingFed(longest=7)
    batch = DecodeBatch(ThreeTokens(), policy)
    sampler = make_sampler(Sampling(seed=seed))
    slot = DecodeSlot(1, [], DRAWS, frozenset(), sampler, drafter=Drafter([Constant(drafts)]))
    batch.add(slot, [], [0])
    drawn: list[int] = []
    while len(drawn) < DRAWS:
        drawn += [token for step in batch.step() for token in step.tokens]
    assert len(drawn) == DRAWS
    assert chi_squared([drawn.count(token) for token in range(3)], DRAWS) < CHI_SQUARED
    # Also after each token: a draft that is kept too often would show there.
    for first in range(3):
        after = [token for before, token in pairwise(drawn) if before == first]
        assert chi_squared([after.count(token) for token in range(3)], len(after)) < CHI_SQUARED
    assert (policy.accepted > DRAWS // 20) == bool(drafts)


def chi_squared(counts: list[int], draws: int) -> float:
    expected = [draws * share for share in SHARES]
    return sum((count - each) ** 2 / each for count, each in zip(counts, expected, strict=True))
