"""Tests drafts of MTP heads: the tokens are those without drafts, whatever a head predicts.

Heads that know the answer are right, wrong or either; they check that the pairs that they get are
those of the answer, each once. All drafts are fed, whatever the policy would say.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import mlx.core as mx
import pytest

from pensieve.engine.generation import NO_DRAFTS, Generation, Sampling, SourceCounts
from pensieve.engine.model.batch import BatchBackend
from pensieve.engine.model.cache_maker import CacheMaker
from pensieve.engine.model.decode_batch import DecodeBatch, read
from pensieve.engine.model.decode_slot import DecodeSlot
from pensieve.engine.model.loading import logit_rows_of
from pensieve.engine.model.logits.sampling import make_sampler
from pensieve.engine.model.mtp.drafts import PROMPT_PAIRS, HeadDrafts
from pensieve.engine.model.mtp.head import CONTEXT_PAIRS, HeadLayers, MtpHead
from pensieve.engine.speculation.cost_curve import ContextCosts, CostCurve
from pensieve.engine.speculation.draft_source import DraftHead
from pensieve.engine.speculation.drafter import Drafter, Speculation, lookup_drafter
from pensieve.engine.speculation.policy import Row, SpeculationPolicy, StepPlan
from pensieve.engine.speculation.row_ledger import PURSE_CAP
from tests.mlx.speculation.test_decoding import (
    ANSWER_TOKENS,
    DISTORTIONS,
    GREEDY,
    PRECISIONS,
    PROMPTS,
    SAMPLINGS,
    Bench,
    EverythingFed,
    assert_finished,
    first_seen,
    generation,
    operations,
)
from tests.mlx.speculation.test_grammar_drafts import generations
from tests.mlx.speculation.test_hybrids import check_states
from tests.mlx.test_grammar import Bench as GrammarBench
from tests.support import tiny_architectures, tiny_models

PROMPT = PROMPTS[0]


@dataclass
class Seen:
    """The pairs' tokens of one cache, and where they may stand: in which text, from where on."""

    tokens: list[int] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class KnowingHead:
    """Knows prompts and answers; `distort` makes its drafts wrong.

    hidden: of the model, after all of these tokens; None: not compared.
    """

    texts: Sequence[Sequence[int]]
    distort: Callable[[int, int], int]
    hidden: Sequence[mx.array] | None = None
    caches: list[Seen] = field(default_factory=list)
    drafts: int = 0

    @property
    def starts(self) -> list[int]:
        return [cache.places[0][1] for cache in self.caches]

    def make_cache(self) -> Seen:
        self.caches.append(Seen())
        return self.caches[-1]

    def draft(self, hidden: mx.array, tokens: mx.array, cache: Seen) -> mx.array:
        assert hidden.shape[:2] == tokens.shape
        before = len(cache.tokens)
        cache.tokens += tokens[0].tolist()
        places = cache.places or [
            (which, start) for which, text in enumerate(self.texts) for start in range(len(text))
        ]
        fitting = [place for place in places if self.fits(cache.tokens, *place)]
        cache.places = [
            (which, start)
            for which, start in fitting
            if self.has_states(hidden[0], which, start + before - 1)
        ]
        self.drafts += 1
        which, start = cache.places[0]
        text, end = self.texts[which], start + len(cache.tokens)
        return mx.array([self.distort(end, text[end]) if end < len(text) else 0], mx.uint32)

    def fits(self, tokens: list[int], which: int, start: int) -> bool:
        return start > 0 and list(self.texts[which][start : start + len(tokens)]) == tokens

    def has_states(self, hidden: mx.array, which: int, start: int) -> bool:
        if self.hidden is None:
            return True
        expected = self.hidden[which][start : start + len(hidden)]
        return mx.allclose(hidden, expected, rtol=1e-3, atol=1e-3).item()


class Answers:
    """The model's answers without drafts, and heads that know them."""

    def __init__(self, model) -> None:
        self.model = model
        self._known: dict = {}

    def of(
        self, prompt: tuple[int, ...], sampling: Sampling = GREEDY, precision: str = "16"
    ) -> list[int]:
        key = prompt, sampling, precision
        if key not in self._known:
            bench = Bench(self.model, PRECISIONS[precision])
            bench.submit(1, generation(prompt, sampling))
            self._known[key] = bench.run().tokens(1)
        return self._known[key]

    def head(self, kind: str, sampling: Sampling = GREEDY, precision: str = "16") -> KnowingHead:
        texts = [[*prompt, *self.of(prompt, sampling, precision)] for prompt in PROMPTS]
        hidden = [self.model.language_model.model(mx.array([text]))[0] for text in texts]
        return KnowingHead(texts, DISTORTIONS[kind], hidden if precision == "16" else None)


def no_other_source(_: Generation) -> Drafter:
    return Drafter()


@pytest.fixture(scope="module")
def answers() -> Answers:
    return Answers(tiny_architectures.build("qwen3_5"))


def random_head(model) -> MtpHead:
    mx.random.seed(11)
    layers = HeadLayers(model)
    layers.set_dtype(mx.float32)
    return MtpHead.of(layers, model)


CASES = [("greedy", "16"), ("seeded", "16"), ("top_p", "8"), ("penalty", "4")]


@pytest.mark.parametrize(("sampling", "precision"), CASES)
@pytest.mark.parametrize("kind", ["mixed", "random"])
def test_tokens_with_a_head_equal_those_without_alone_and_joined_by_others(
    answers: Answers, sampling: str, precision: str, kind: str
) -> None:
    chosen, model = SAMPLINGS[sampling], answers.model

    def bench() -> Bench:
        is_random = kind == "random"
        head = random_head(model) if is_random else answers.head(kind, chosen, precision)
        return Bench(model, PRECISIONS[precision], no_other_source, head=head)

    alone = bench()
    alone.submit(0, generation(PROMPT, chosen))
    assert alone.run().tokens(0) == answers.of(PROMPT, chosen, precision)
    check_counts(alone)
    assert fed(alone) > ANSWER_TOKENS // 3
    together = bench()
    for key, prompt in enumerate(PROMPTS):
        together.submit(key, generation(prompt, chosen, max_tokens=ANSWER_TOKENS - 16 * key))
        for _ in range(8):
            together.step()
    together.run()
    for key, prompt in enumerate(PROMPTS):
        expected = answers.of(prompt, chosen, precision)[: ANSWER_TOKENS - 16 * key]
        assert together.tokens(key) == expected
    check_counts(together)


def check_counts(bench: Bench) -> None:
    counted = SourceCounts(fed(bench), bench.policy.accepted)
    assert bench.scheduler.drafts == replace(NO_DRAFTS, mtp=counted)


def fed(bench: Bench) -> int:
    """Return how many drafts were fed; the policy plans those of other sources alone."""
    return sum(len(row.draft) for _, rows in bench.policy.settled for row in rows)


def test_head_that_is_always_right_halves_the_passes(answers: Answers) -> None:
    head = answers.head("oracle")
    bench = Bench(answers.model, drafter_of=no_other_source, head=head)
    bench.submit(0, generation(PROMPT))
    bench.run()
    assert len(bench.policy.plans) <= ANSWER_TOKENS // 2 + 1
    assert bench.scheduler.tokens_per_step == pytest.approx(2.0, rel=0.05)
    assert bench.policy.accepted == fed(bench) == head.drafts
    # One cache, from the prompt's beginning on.
    assert head.starts == [1]


@pytest.mark.parametrize("is_tied", [False, True])
def test_real_head_of_a_model_without_memory_is_always_right(is_tied: bool) -> None:
    model = tiny_architectures.build("qwen3_5", tie_word_embeddings=is_tied)
    forget(model)
    layers = HeadLayers(model)
    forget(layers)
    size = layers.norm.weight.size
    layers.fc.weight = mx.concatenate([mx.eye(size), mx.zeros((size, size))], axis=1)
    layers.set_dtype(mx.float32)
    bench = Bench(model, drafter_of=no_other_source, head=MtpHead.of(layers, model))
    bench.submit(0, generation(PROMPT))
    plain = Bench(model)
    plain.submit(0, generation(PROMPT))
    assert bench.run().tokens(0) == plain.run().tokens(0)
    assert bench.policy.accepted == fed(bench) >= ANSWER_TOKENS // 2 - 1
    assert bench.scheduler.tokens_per_step > 1.9


def forget(model) -> None:
    """Make each layer add nothing, so that the next token depends on the last one alone."""
    for path, layer in model.named_modules():
        if path.rpartition(".")[2] in {"o_proj", "out_proj", "down_proj"}:
            layer.weight = mx.zeros_like(layer.weight)


def test_head_is_silent_while_sequences_decode_together_and_starts_again_after(
    answers: Answers,
) -> None:
    head = answers.head("oracle")
    bench = Bench(answers.model, drafter_of=no_other_source, head=head)
    bench.submit(0, generation(PROMPT))
    while len(bench.tokens(0)) < 6:
        bench.step()
    drafted = head.drafts
    assert drafted > 1
    bench.submit(1, generation(PROMPTS[1], max_tokens=8))
    while not bench.tokens(1):
        bench.step()
    drafted = head.drafts
    bench.policy.plans.clear()
    while len(bench.tokens(1)) < 7:
        bench.step()
    assert {plan.drafts for plan in bench.policy.plans} == {(0, 0)}
    assert head.drafts == drafted
    bench.run()
    assert head.drafts > drafted + 5
    assert bench.tokens(0) == answers.of(PROMPT)
    # The second cache begins in the answer: what was computed together is not known.
    assert len(head.starts) == 2
    assert head.starts[1] > len(PROMPT)


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_caches_of_an_answer_with_a_head_equal_a_fresh_prefills(
    answers: Answers, kind: str
) -> None:
    sampling = SAMPLINGS["seeded"]
    for max_tokens in (1, 2, 3, 20, 23):
        head = answers.head(kind, sampling)
        bench = Bench(answers.model, drafter_of=no_other_source, head=head)
        bench.submit(0, generation(PROMPT, sampling, max_tokens=max_tokens))
        bench.run()
        assert bench.tokens(0) == answers.of(PROMPT, sampling)[:max_tokens]
        assert_finished(bench, 0, "length", max_tokens)
        assert check_states(bench, PROMPT, bench.tokens(0)) >= len(PROMPT)


def test_stop_token_among_accepted_drafts_ends_the_answer(answers: Answers) -> None:
    sampling = SAMPLINGS["seeded"]
    answer = answers.of(PROMPT, sampling)
    for at in first_seen(answer)[1:9]:
        head = answers.head("oracle", sampling)
        bench = Bench(answers.model, drafter_of=no_other_source, head=head)
        stops = frozenset({answer[at]})
        bench.submit(0, generation(PROMPT, sampling, stop_tokens=stops))
        bench.run()
        assert bench.tokens(0) == answer[:at]
        assert_finished(bench, 0, "stop_token", at + 1)
        check_states(bench, PROMPT, answer[: at + 1])


@pytest.mark.parametrize("tokens", [5, 6, 8])
@pytest.mark.parametrize("kind", ["oracle", "mixed"])
def test_cancelled_answer_leaves_exact_caches_for_the_next_turn(
    answers: Answers, tokens: int, kind: str
) -> None:
    head = answers.head(kind)
    bench = Bench(answers.model, drafter_of=no_other_source, head=head)
    bench.submit(0, generation(PROMPT))
    while len(bench.tokens(0)) < tokens:
        bench.step()
    bench.scheduler.cancel(0)
    second = (*PROMPT, *bench.tokens(0), 7, 8, 9)
    plain = Bench(answers.model)
    plain.submit(0, generation(second))
    expected = plain.run().tokens(0)
    head.texts, head.hidden = [[*second, *expected]], None
    head.drafts = 0
    bench.submit(1, generation(second))
    assert bench.events[1][0].cached_tokens >= len(PROMPT)
    assert bench.run().tokens(1) == expected
    # Its pairs begin after the cached prefix.
    assert head.starts[-1] >= len(PROMPT)
    assert head.drafts > 5


def test_lookup_and_head_draft_by_turns(answers: Answers) -> None:
    head = answers.head("oracle")
    bench = Bench(answers.model, drafter_of=partial(lookup_drafter, 256), head=head)
    bench.submit(0, generation(PROMPT))
    assert bench.run().tokens(0) == answers.of(PROMPT)
    assert bench.scheduler.drafts.mtp.accepted == bench.scheduler.drafts.mtp.drafted > 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"model_type": "qwen3_5", **tiny_architectures.GATED_DELTA_NET}
    return tiny_models.build("qwen3", tmp_path_factory.mktemp("qwen3_5"), **sizes)


def test_answers_with_grammars_and_a_head_equal_those_without(folder: Path) -> None:
    plain = GrammarBench(folder)
    for key in range(4):
        plain.run({key: generations(plain)[key]})
    prompts = [generations(plain)[key].prompt_tokens for key in range(4)]
    texts = [[*prompt, *plain.tokens(key), plain.end] for key, prompt in enumerate(prompts)]
    head, policy = KnowingHead(texts, DISTORTIONS["mixed"]), EverythingFed()
    speculation = Speculation(policy, no_other_source, head)
    bench = GrammarBench(folder, partial(BatchBackend, speculation=speculation))
    for key in range(4):
        bench.run({key: generations(bench)[key]})
        assert bench.tokens(key) == plain.tokens(key)
        assert bench.events[key][-1] == plain.events[key][-1]
    counted = bench.scheduler.drafts
    assert counted.grammar.accepted > 10
    assert head.drafts >= counted.mtp.drafted > counted.mtp.accepted > 10
    plain.close()
    bench.close()


class NeverTheHead(EverythingFed):
    def prefers_head(self, plan: StepPlan, row: Row) -> bool:
        return False


def counted_steps(model, head: DraftHead | None) -> tuple[list, list[int], int]:
    """Return the passes of twenty steps, the operations of their draws, and the reads."""
    passes, draws, reads = [], [], []

    def forward(tokens, cache):
        passes.append(tuple(tokens.shape))
        return model(tokens, cache=cache)

    def read_counted(tokens: mx.array) -> list[int]:
        reads.append(len(tokens))
        return read(tokens)

    def sampler(logits: mx.array, position: int = 0) -> mx.array:
        drawn = mx.argmax(logits, axis=-1)
        draws.append(operations(drawn))
        mx.eval(drawn)
        return drawn

    rows = logit_rows_of(model)
    assert rows is not None
    rows.keeps_hidden = False
    drafts = HeadDrafts(head, rows) if head else None
    batch = DecodeBatch(forward, NeverTheHead(), read_counted, head=drafts)
    caches = [cache.merge([cache]) for cache in CacheMaker(model, is_ragged=True)()]
    batch.add(DecodeSlot(0, [], 100, frozenset(), sampler), caches, PROMPT)
    for _ in range(20):
        batch.step()
    return passes, draws, len(reads)


def test_steps_without_a_draft_launch_and_read_the_same_with_a_head_and_without(
    answers: Answers,
) -> None:
    plain = counted_steps(answers.model, None)
    assert plain[0][1:] == [(1, 1)] * 20
    assert plain[2] == 20
    head = answers.head("oracle")
    assert counted_steps(answers.model, head) == plain
    assert head.drafts == 0


def test_time_of_a_heads_draft_is_accounted_apart_from_its_step(answers: Answers) -> None:
    head, now_s, drafts = answers.head("oracle"), 0.0, 0

    def wait_and_read(tokens: mx.array) -> list[int]:
        nonlocal now_s, drafts
        is_draft, drafts = head.drafts > drafts, head.drafts
        now_s += 0.25 if is_draft else 1.0 + 0.2 * (len(tokens) - 1)
        return read(tokens)

    rows = logit_rows_of(answers.model)
    assert rows is not None
    policy = SpeculationPolicy(CostCurve((ContextCosts(64, {1: 1.0, 2: 1.1, 4: 1.5}),)), 0.2)
    batch = DecodeBatch(
        answers.model, policy, wait_and_read, lambda: now_s, head=HeadDrafts(head, rows)
    )
    caches = [cache.merge([cache]) for cache in CacheMaker(answers.model, is_ragged=True)()]
    slot = DecodeSlot(0, [], ANSWER_TOKENS, frozenset(), make_sampler(GREEDY))
    batch.add(slot, caches, PROMPT)
    got: list[int] = []
    while batch.slots:
        got += [token for each in batch.step() for token in each.tokens]
    assert got == answers.of(PROMPT)
    # A few steps without drafts are timed first.
    assert ANSWER_TOKENS // 2 - 5 < head.drafts < ANSWER_TOKENS // 2
    assert policy._costs is not None
    assert policy._costs.head_price(0) == pytest.approx(0.25, abs=0.01)
    assert policy._costs.ratio(2, 1, 0) == pytest.approx(1.2, abs=0.01)
    assert slot.drafter.ledger.purse == PURSE_CAP


def test_pairs_of_steps_without_drafts_are_added_with_the_next_draft(answers: Answers) -> None:
    text = [*PROMPT, *answers.of(PROMPT)]
    head, model = answers.head("oracle"), answers.model
    rows = logit_rows_of(model)
    assert rows is not None
    policy = NeverTheHead()
    batch = DecodeBatch(model, policy, head=HeadDrafts(head, rows))
    caches = [cache.merge([cache]) for cache in CacheMaker(model, is_ragged=True)()]
    slot = DecodeSlot(0, [], 100, frozenset(), make_sampler(GREEDY))
    batch.add(slot, caches, PROMPT)
    got: list[int] = []
    for step in range(12):
        if step == 7:
            batch._policy = EverythingFed()
        got += [token for each in batch.step() for token in each.tokens]
    assert got == text[len(PROMPT) : len(PROMPT) + len(got)]
    assert head.drafts > 2
    assert head.starts == [1]


@pytest.mark.parametrize("pairs", [1, PROMPT_PAIRS, PROMPT_PAIRS + 3])
def test_head_starts_with_the_last_tokens_of_a_prompt(answers: Answers, pairs: int) -> None:
    model = answers.model
    rows = logit_rows_of(model)
    assert rows is not None
    seen = Recorder()
    drafts = HeadDrafts(seen, rows)
    prompt = [(3 * at) % 250 for at in range(pairs)]
    model(mx.array([prompt]))
    drafts.begin(prompt, mx.array([251], mx.uint32))
    drafts.draft()
    assert seen.pairs == [[*prompt[1:], 251][-PROMPT_PAIRS:]]
    expected = model.language_model.model(mx.array([prompt]))[:, -PROMPT_PAIRS:]
    assert mx.allclose(seen.hidden[0], expected, atol=1e-4).item()


def test_longest_wait_for_a_draft_leaves_only_what_the_head_sees(answers: Answers) -> None:
    model = answers.model
    rows = logit_rows_of(model)
    assert rows is not None
    seen = Recorder()
    drafts = HeadDrafts(seen, rows)
    for token in range(CONTEXT_PAIRS + 50):
        rows.hidden = mx.full((1, 1, 4), token)
        drafts.note(0, mx.array([token % 256], mx.uint32), 1)
        if token == 20:
            drafts.draft()
    drafts.draft()
    assert [len(pairs) for pairs in seen.pairs] == [21, CONTEXT_PAIRS]
    assert seen.caches == 2


@dataclass
class Recorder:
    hidden: list[mx.array] = field(default_factory=list)
    pairs: list[list[int]] = field(default_factory=list)
    caches: int = 0

    def make_cache(self) -> object:
        self.caches += 1
        return object()

    def draft(self, hidden: mx.array, tokens: mx.array, cache: object) -> mx.array:
        assert hidden.shape[:2] == tokens.shape
        self.hidden.append(hidden)
        self.pairs.append(tokens[0].tolist())
        return mx.array([0], mx.uint32)
