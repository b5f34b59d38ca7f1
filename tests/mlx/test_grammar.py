"""Tests grammar-constrained answers on real MLX with tiny random models.

Their tokens are all about equally likely, so that errors in the masks show.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jsonschema
import mlx.core as mx
import pytest
from tokenizers import Tokenizer

from pensieve.engine.generation import (
    Finished,
    Generation,
    Grammar,
    ResourceLimits,
    Sampling,
    Started,
    Token,
)
from pensieve.engine.grammar.compiler import GrammarCompiler
from pensieve.engine.grammar.mask import Matcher, TokenMask, masked
from pensieve.engine.model.batch import BatchBackend
from pensieve.engine.model.cache_maker import CacheMaker, supports_ragged_kv
from pensieve.engine.model.loading import load_weights
from pensieve.engine.model.memory import plan_memory
from pensieve.engine.planning.memory_plan import GB
from pensieve.engine.protocol import Failed
from pensieve.engine.scheduling.prefill_chunks import ChunkSizer
from pensieve.engine.scheduling.prefix_cache import PrefixCache
from pensieve.engine.scheduling.request_queue import QueueLimits
from pensieve.engine.scheduling.scheduler import Scheduler
from pensieve.engine.scheduling.tiered_prefix_cache import TieredPrefixCache
from pensieve.errors import EngineError, GrammarError
from tests.engine import grammar_cases as cases
from tests.mlx.scheduler_bench import FailingOnce
from tests.support import tiny_models
from tests.support.device import DEVICE
from tests.support.fakes import RustPanic

GREEDY = Sampling(temperature=0)
MAX_BATCH = 16


@dataclass
class Bench:
    """A scheduler over a model and its tokenizer."""

    folder: Path
    backend: type[BatchBackend] = BatchBackend
    match: Callable[[Generation], Matcher] | None = None
    events: dict[int, list] = field(default_factory=dict)

    def __post_init__(self) -> None:
        mx.random.seed(3)
        model = load_weights(self.folder, DEVICE)
        make_caches = CacheMaker(model, supports_ragged_kv(model))
        self.tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        self.grammars = GrammarCompiler.of(self.folder / "tokenizer.json")
        self.scheduler = Scheduler(
            lambda: self.backend(
                model, make_caches, ChunkSizer(64), self.match or self.grammars.matcher
            ),
            TieredPrefixCache(PrefixCache(b"test")),
            plan_memory(make_caches, DEVICE, ResourceLimits(8 * GB)).budget,
            QueueLimits(MAX_BATCH, max_waiting=1000),
        )

    @property
    def end(self) -> int:
        return self.tokenizer.token_to_id("<|im_end|>") or self.tokenizer.token_to_id("<|end|>")

    def generation(self, lark: str | None, seed: int = 0, **more: Any) -> Generation:
        """Return a greedy generation over a prompt of its own, unless overridden."""
        return Generation(
            prompt_tokens=more.pop("prompt", tuple(range(3 + seed, 20 + seed))),
            max_tokens=more.pop("max_tokens", 1500),
            stop_tokens=frozenset({self.end}),
            sampling=more.pop("sampling", GREEDY),
            grammar=None if lark is None else Grammar(lark),
            **more,
        )

    def run(self, generations: dict[int, Generation]) -> None:
        for key, generation in generations.items():
            self.events[key] = [self.scheduler.submit(key, generation)[1]]

        while not self.scheduler.is_idle:
            for key, event in self.scheduler.step():
                self.events[key].append(event)

    def tokens(self, key: int) -> list[int]:
        return [event.token_id for event in self.events[key] if isinstance(event, Token)]

    def text(self, key: int) -> str:
        return self.tokenizer.decode(self.tokens(key), skip_special_tokens=False)

    def has_stopped(self, key: int) -> bool:
        return self.events[key][-1] == Finished("stop_token", len(self.tokens(key)) + 1)

    def close(self) -> None:
        self.scheduler.close()
        self.grammars.close()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        kind: tiny_models.build(kind, tmp_path_factory.mktemp(kind)) for kind in ("qwen3", "phi3")
    }


@pytest.fixture
def bench(folders: dict[str, Path]) -> Iterator[Bench]:
    bench = Bench(folders["qwen3"])
    yield bench
    bench.close()


def check_call(text: str, tools: dict[str, cases.Schema]) -> None:
    call = json.loads(text)
    jsonschema.validate(call["arguments"], tools[call["name"]])


SAMPLINGS = [
    Sampling(),
    Sampling(temperature=0.7, top_p=0.9),
    Sampling(top_k=3),
    Sampling(temperature=2.0, top_k=40, top_p=0.5),
    Sampling(seed=7),
    Sampling(min_p=0.02, repetition_penalty=1.5),
]


@pytest.mark.parametrize("kind", ["qwen3", "phi3"])
def test_two_hundred_forced_calls_of_ten_tool_sets_validate(
    folders: dict[str, Path], kind: str
) -> None:
    """Phi-3's vocabulary is padded, and its tokens begin with a space."""
    bench = Bench(folders[kind])
    sets = list(cases.TOOL_SETS.values())
    keys = range(200 if kind == "qwen3" else 10)
    bench.run(
        {
            key: bench.generation(
                cases.forced(sets[key % len(sets)]), key % 50, sampling=SAMPLINGS[key % 6]
            )
            for key in keys
        }
    )
    assert [key for key in keys if not bench.has_stopped(key)] == []
    for key in keys:
        check_call(bench.text(key), dict(sets[key % len(sets)]))
    bench.close()


@pytest.mark.parametrize(("repeat", "counts"), [("*", {0, 1, 2}), ("?", {0, 1}), ("+", {1, 2, 3})])
def test_calls_in_text_validate_and_occur_as_often_as_allowed(
    bench: Bench, repeat: str, counts: set[int]
) -> None:
    tools = dict(cases.TOOL_SETS["files"])
    lark = cases.in_text(tools, repeat, free="/[a-z <]{0,9}/")
    keys = range(12)
    bench.run(
        {key: bench.generation(lark, key, sampling=Sampling(), max_tokens=600) for key in keys}
    )
    seen: set[int] = set()
    for key in keys:
        calls = re.findall("<call>(.*?)</call>", bench.text(key), re.DOTALL)
        for call in calls:
            check_call(call, tools)
        if bench.has_stopped(key):
            seen.add(len(calls))
    assert seen & counts
    assert min(seen) >= min(counts)
    assert repeat != "?" or max(seen) == 1 or seen == {0}


FORCED = cases.forced(cases.TOOL_SETS["files"])


def constrained(bench: Bench) -> dict[int, Generation]:
    return {key: bench.generation(FORCED, key * 5) for key in range(5)}


def answers(bench: Bench, generations: dict[int, Generation]) -> list[list[int]]:
    bench.run(generations)
    return [bench.tokens(key) for key in generations]


def test_greedy_answers_are_the_same_alone_and_batched(bench: Bench) -> None:
    generations = constrained(bench) | {
        key: bench.generation(None, key, max_tokens=40) for key in range(10, 14)
    }
    alone = [answers(bench, {key: generation})[0] for key, generation in generations.items()]
    assert answers(bench, generations) == alone


@pytest.mark.parametrize("steps", [3, 9, 20])
def test_grammar_position_survives_a_failed_step(
    bench: Bench, folders: dict[str, Path], steps: int
) -> None:
    FailingOnce.steps_left = steps
    failing = Bench(folders["qwen3"], backend=FailingOnce)
    generations = constrained(bench)
    assert answers(failing, generations) == answers(bench, generations)
    assert FailingOnce.steps_left < 0
    assert all(failing.has_stopped(key) for key in generations)
    failing.close()


def test_grammar_position_survives_requeueing(bench: Bench, folders: dict[str, Path]) -> None:
    """Memory for one and a half sequences: the batch is emptied repeatedly."""
    generations = {key: bench.generation(FORCED, key * 5) for key in range(3)}
    narrow = Bench(folders["qwen3"])
    whole = narrow.scheduler._budget
    narrow.scheduler._budget = replace(whole, kv_bytes=whole.sequence(256) + 1)
    assert answers(narrow, generations) == answers(bench, generations)
    narrow.close()


@pytest.mark.parametrize("after", [0, 1, 5])
def test_grammar_position_survives_preemption(bench: Bench, after: int) -> None:
    generation = bench.generation(FORCED)
    (expected,) = answers(bench, {1: generation})
    scheduler = bench.scheduler
    bench.events[2] = [scheduler.submit(2, generation)[1]]
    while len(bench.tokens(2)) < after + 1:
        bench.events[2] += [event for _, event in scheduler.step()]
    scheduler._preempt(scheduler._running[2])
    while not scheduler.is_idle:
        bench.events[2] += [event for _, event in scheduler.step()]
    assert bench.tokens(2) == expected


def test_constrained_answer_is_the_same_over_a_cached_prefix(bench: Bench) -> None:
    prompt = tuple(range(3, 250)) * 2
    (cold,) = answers(bench, {1: bench.generation(FORCED, prompt=prompt)})
    (warm,) = answers(bench, {2: bench.generation(FORCED, prompt=prompt)})
    assert bench.events[2][0] == Started(len(prompt) - 1)
    assert warm == cold


def test_answer_ended_by_length_is_a_prefix_of_the_whole(bench: Bench) -> None:
    (whole,) = answers(bench, {1: bench.generation(FORCED)})
    (trimmed,) = answers(bench, {2: bench.generation(FORCED, max_tokens=7)})
    assert trimmed == whole[:7]
    assert bench.events[2][-1] == Finished("length", 7)


def test_answer_of_zero_or_one_token_stops(bench: Bench) -> None:
    bench.run({1: bench.generation('start: ""'), 2: bench.generation('start: "a"')})
    assert (bench.text(1), bench.text(2)) == ("", "a")
    assert bench.has_stopped(1)
    assert bench.has_stopped(2)


@pytest.mark.parametrize("max_calls", [0, 1, 5])
def test_grammar_failure_ends_only_its_own_answer(folders: dict[str, Path], max_calls: int) -> None:
    bench = Bench(folders["qwen3"], match=lambda _: LimitedMatcher(max_calls))
    neighbour = bench.generation(None, 4, max_tokens=40)
    (expected,) = answers(bench, {1: neighbour})
    bench.run({2: neighbour, 3: bench.generation(FORCED)})
    assert bench.tokens(2) == expected
    assert bench.tokens(3) == [ALLOWED_TOKEN] * max_calls
    assert bench.events[3][-1] == Failed("no more", "grammar")
    bench.close()


ALLOWED_TOKEN = 2


class LimitedMatcher:
    """A matcher that allows one token, a limited number of times."""

    def __init__(self, max_calls: int) -> None:
        self.advanced: list[int] = []
        self.max_calls = max_calls

    def advance(self, token_id: int) -> None:
        self.advanced.append(token_id)

    def masks(self, drafts: Sequence[int]) -> list[bytearray]:
        if len(self.advanced) >= self.max_calls:
            raise GrammarError("no more")
        return [bytearray([0] * ALLOWED_TOKEN + [1])]

    def forced(self) -> list[int]:
        return []

    def valid(self, tokens: Sequence[int]) -> int:
        return 0


def test_mask_of_a_failed_grammar_masks_nothing_and_never_raises() -> None:
    limited = LimitedMatcher(max_calls=2)
    mask = TokenMask(limited)
    logits = mx.zeros((1, 5))
    for tokens in ([], [2]):
        mask.extend(tokens)
        masked_logits, drafts = mask(logits)
        assert masked_logits.tolist() == [[-mx.inf, -mx.inf, 0, -mx.inf, -mx.inf]]
        assert drafts == 0
    assert mask.failure is None
    for tokens in ([3], [4]):
        mask.extend(tokens)
        assert mask(logits)[0].tolist() == [[0] * 5]
    assert str(mask.failure) == "no more"
    assert limited.advanced == [2, 3]


def test_panic_of_the_grammar_library_ends_only_one_answer() -> None:
    class Panicking(LimitedMatcher):
        def masks(self, drafts: Sequence[int]) -> list[bytearray]:
            raise RustPanic("index out of bounds")

    mask = TokenMask(Panicking(max_calls=0))
    assert mask(mx.zeros((1, 2)))[0].tolist() == [[0, 0]]
    assert isinstance(mask.failure, EngineError)


@pytest.mark.parametrize("size", [2, 3, 33])
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_mask_fits_vocabularies_of_any_size(size: int, dtype: mx.Dtype) -> None:
    row = masked(mx.ones((1, size), dtype=dtype), bytearray([0, 200, 1]))
    assert row.dtype == dtype
    expected = [-mx.inf, 1, 1, *[-mx.inf] * 30][:size]
    assert row.tolist() == [expected]
