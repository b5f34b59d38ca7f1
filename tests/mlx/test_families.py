"""Every family of architectures through the same scheduler: batched, cached, branched, restored from disk; always exact."""

from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import pytest
from mlx_lm.generate import generate_step

from pensieve.engine.archive import DiskArchive
from pensieve.engine.batch import BatchBackend
from pensieve.engine.block_store import BlockStore, StoreLimits
from pensieve.engine.budget import GB
from pensieve.engine.caches import CacheMaker, takes_ours
from pensieve.engine.chunks import ChunkSizer
from pensieve.engine.generation import Allowance, Generation, Sampling, Started, Token
from pensieve.engine.memory import plan_memory
from pensieve.engine.precision import FULL, KVPrecision
from pensieve.engine.prefix_cache import PrefixCache
from pensieve.engine.scheduler import Limits, Scheduler
from pensieve.engine.write_ledger import WriteLedger
from tests.mlx import architectures

GREEDY = Sampling(temperature=0)
PLENTY = StoreLimits(10**9, 10**9)
FULLY_RAGGED = {"llama", "qwen3", "phi3"}


@pytest.fixture(scope="module", params=list(architectures.FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(family: str):
    return architectures.build(family)


@pytest.fixture(scope="module", params=sorted(FULLY_RAGGED))
def ragged_model(request: pytest.FixtureRequest):
    return architectures.build(request.param)


class Bench:
    """A scheduler with its prefix cache and, where a folder is given, its archive."""

    def __init__(
        self,
        model,
        folder: Path | None = None,
        precision: KVPrecision = FULL,
        limits: StoreLimits = PLENTY,
    ) -> None:
        make_caches = CacheMaker(model, takes_ours(model), precision)
        self.prefixes = PrefixCache(b"test")
        self.archive = None
        if folder is not None:
            self.store = BlockStore(folder, limits, WriteLedger(folder.parent / "written.json"))
            self.archive = DiskArchive(self.store, make_caches, b"test")
        self.scheduler = Scheduler(
            lambda: BatchBackend(model, make_caches, ChunkSizer(64)),
            self.prefixes,
            plan_memory(make_caches, "cpu", Allowance(8 * GB)).budget,
            Limits(max_batch=4, max_waiting=20),
            self.archive,
        )

    def run(self, *prompts: tuple[int, ...], max_tokens: int = 8) -> list[list[int]]:
        tokens: list[list[int]] = [[] for _ in prompts]
        self.cached: list[int] = []
        for key, prompt in enumerate(prompts):
            turns = tuple(range(100, len(prompt), 100))
            generation = Generation(prompt, max_tokens, sampling=GREEDY, boundaries=turns)
            _, started = self.scheduler.submit(key, generation)
            assert isinstance(started, Started)
            self.cached.append(started.cached_tokens)
        while not self.scheduler.is_idle:
            for key, event in self.scheduler.step():
                if isinstance(event, Token):
                    tokens[key].append(event.token_id)
        self.prefixes.check()
        return tokens

    def close(self) -> None:
        """As a worker ends: everything at rest is on disk."""
        assert self.archive is not None
        while self.archive.spill(self.prefixes) is not None:
            pass
        self.archive.close()


@pytest.fixture
def bench(model) -> Iterator[Bench]:
    bench = Bench(model)
    yield bench
    bench.scheduler.close()


def reference(model, prompt: tuple[int, ...], max_tokens: int = 8) -> list[int]:
    return [
        int(token) for token, _ in generate_step(mx.array(prompt), model, max_tokens=max_tokens)
    ]


def prompt_of(length: int, seed: int = 1) -> tuple[int, ...]:
    return tuple((at * at * seed + at) % 251 for at in range(length))


def test_caches_without_padding_wherever_a_model_takes_them(family: str, model) -> None:
    kinds = {type(cache).__name__ for cache in CacheMaker(model, takes_ours(model))()}
    if family in FULLY_RAGGED:
        assert kinds == {"SequenceKV"}
    assert ("SequenceKV" in kinds) == (family != "gemma2")


def test_batched_is_what_each_is_alone(model, bench: Bench) -> None:
    prompts = [prompt_of(length, seed) for seed, length in enumerate((3, 70, 150, 1, 200), 1)]
    assert bench.run(*prompts) == [reference(model, prompt) for prompt in prompts]


def test_a_next_turn_goes_on_where_the_last_one_ended(model, bench: Bench) -> None:
    first = prompt_of(310)
    (answer,) = bench.run(first)
    second = (*first, *answer, 9, 8, 7)
    assert bench.run(second) == [reference(model, second)]
    assert bench.cached == [len(first) + len(answer)]


def test_an_edited_turn_goes_on_from_the_last_boundary_it_can(family: str, model, bench) -> None:
    bench.run(prompt_of(310))
    edited = (*prompt_of(310)[:250], 9, 8, 7)
    assert bench.run(edited) == [reference(model, edited)]
    assert bench.cached == [250 if family in {*FULLY_RAGGED, "gemma2"} else 200]


def test_a_branch_leaves_the_conversation_it_came_from_as_it_was(model, bench: Bench) -> None:
    trunk = prompt_of(900)
    bench.run(trunk)
    branch, onward = (*trunk[:400], 5, 6), (*trunk, 9)
    assert bench.run(branch, onward) == [reference(model, branch), reference(model, onward)]


def test_what_comes_back_from_disk_is_what_a_fresh_prefill_gives(model, tmp_path: Path) -> None:
    first = prompt_of(610)
    before = Bench(model, tmp_path)
    (answer,) = before.run(first)
    before.close()
    second = (*first, *answer, 9, 8, 7)
    after = Bench(model, tmp_path)
    assert after.run(second) == [reference(model, second)]
    assert after.cached == [len(first) + len(answer)]
    after.close()


def test_from_disk_too_an_edited_turn_is_exact_to_the_token(
    family: str, model, tmp_path: Path
) -> None:
    before = Bench(model, tmp_path)
    before.run(prompt_of(610))
    before.run((*prompt_of(610)[:300], 1, *prompt_of(300, 7)))
    before.close()
    edited = (*prompt_of(610)[:500], 9, 8, 7)
    after = Bench(model, tmp_path)
    assert after.run(edited) == [reference(model, edited)]
    # The second whole block is only in part what is asked for; layers that cannot be cut back need it whole.
    assert after.cached == [500 if family in {*FULLY_RAGGED, "gemma2"} else 0]
    after.close()


def test_more_at_rest_than_the_disk_may_hold_is_written_once(model, tmp_path: Path) -> None:
    bench = Bench(model, tmp_path, limits=StoreLimits(cap_bytes=600_000, daily_bytes=10**9))
    for seed in range(1, 5):
        bench.run(prompt_of(520, seed))
    bench.close()
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 600_000


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_damaged_file_is_a_miss_and_never_a_wrong_answer(model, tmp_path: Path, at: int) -> None:
    first = prompt_of(610)
    before = Bench(model, tmp_path)
    before.run(first)
    before.close()
    damaged = sorted(tmp_path.iterdir())[at]
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    after = Bench(model, tmp_path)
    assert after.run((*first, 3)) == [reference(model, (*first, 3))]
    after.close()


@pytest.mark.parametrize("bits", [8, 4])
def test_quantized_is_the_same_alone_together_and_from_disk(
    ragged_model, bits: int, tmp_path: Path
) -> None:
    model = ragged_model
    precision = KVPrecision(bits, group_size=32, is_rotated=bits == 4)
    prompts = [prompt_of(length, seed) for seed, length in enumerate((300, 70, 555), 1)]
    alone = [Bench(model, precision=precision).run(prompt)[0] for prompt in prompts]
    before = Bench(model, tmp_path, precision)
    assert all(len(answer) == 8 for answer in alone)
    assert before.run(*prompts) == alone
    before.close()
    after = Bench(model, tmp_path, precision)
    assert after.run(prompts[2]) == [alone[2]]
    assert after.cached == [554]
    after.close()


def test_chunks_change_nothing(model, bench: Bench) -> None:
    """A prompt processed 16 tokens at a time beside others, and at once."""
    long = prompt_of(333, 7)
    assert bench.run(prompt_of(20, 3), long, prompt_of(30, 5), max_tokens=30)[1] == reference(
        model, long, 30
    )
