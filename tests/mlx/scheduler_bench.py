"""A scheduler over a real model, and mlx-lm's own answers as a reference."""

from itertools import count
from pathlib import Path

import mlx.core as mx
from mlx_lm.generate import generate_step

from pensieve.engine.disk.block_store import BlockStore, StoreLimits
from pensieve.engine.disk.write_quota import DailyWriteQuota
from pensieve.engine.generation import (
    Generation,
    ResourceLimits,
    Sampling,
    Started,
    Token,
)
from pensieve.engine.model.batch import BatchBackend
from pensieve.engine.model.cache_maker import CacheMaker, supports_batching, supports_ragged_kv
from pensieve.engine.model.disk_prefix_cache import DiskPrefixCache
from pensieve.engine.model.memory import plan_memory
from pensieve.engine.planning.kv_precision import FULL, KVPrecision
from pensieve.engine.planning.memory_plan import GB
from pensieve.engine.protocol import Failed, WorkerEvent
from pensieve.engine.scheduling.disk_tier import NoDiskTier
from pensieve.engine.scheduling.prefill_chunks import ChunkSizer
from pensieve.engine.scheduling.prefix_cache import Hit, PrefixCache
from pensieve.engine.scheduling.preload import Preload
from pensieve.engine.scheduling.request_queue import QueueLimits
from pensieve.engine.scheduling.restore import ThrottledRestore
from pensieve.engine.scheduling.scheduler import Scheduler
from pensieve.engine.scheduling.tiered_prefix_cache import TieredPrefixCache
from tests.support.device import DEVICE

GREEDY = Sampling(temperature=0)
PLENTY = StoreLimits(10**9, 10**9)


class Bench:
    """A scheduler with its prefix cache and, if a folder is given, a disk cache."""

    def __init__(
        self,
        model,
        folder: Path | None = None,
        precision: KVPrecision = FULL,
        limits: StoreLimits = PLENTY,
        backend: type[BatchBackend] = BatchBackend,
        fingerprint: bytes = b"test",
    ) -> None:
        make_caches = CacheMaker(model, supports_ragged_kv(model), precision)
        self.prefixes = PrefixCache(fingerprint)
        disk_tier = NoDiskTier()
        if folder is not None:
            self.store = BlockStore(folder, limits, DailyWriteQuota(folder.parent / "written.json"))
            disk_tier = DiskPrefixCache(self.store, make_caches, fingerprint)
        chunks = ChunkSizer(64)
        budget = plan_memory(make_caches, DEVICE, ResourceLimits(8 * GB)).budget
        self.prefix_cache = TieredPrefixCache(
            self.prefixes,
            disk_tier,
            lambda restore: ThrottledRestore(restore, chunks),
            Preload(self.prefixes, disk_tier, budget),
        )
        self.scheduler = Scheduler(
            lambda: backend(model, make_caches, chunks),
            self.prefix_cache,
            budget,
            QueueLimits(max_batch=4 if supports_batching(make_caches) else 1, max_waiting=20),
        )

    def run(
        self,
        *prompts: tuple[int, ...],
        max_tokens: int = 8,
        pinned_tokens: int = 0,
        cancel_after: dict[int, int] | None = None,
    ) -> list[list[int]]:
        """Return the greedy answers to prompts that are submitted together.

        `cancel_after` has the number of steps after which a prompt's request is cancelled.
        """
        self.answers: list[list[int]] = [[] for _ in prompts]
        self.cached: list[int] = []
        self.failed: list[int] = []
        for key, prompt in enumerate(prompts):
            turns = {*range(100, len(prompt), 100), pinned_tokens} - {0}
            generation = Generation(
                prompt,
                max_tokens,
                sampling=GREEDY,
                boundaries=tuple(sorted(turns)),
                pinned_tokens=pinned_tokens,
            )
            _, started = self.scheduler.submit(key, generation)
            assert isinstance(started, Started)
            self.cached.append(started.cached_tokens)
        for number in count():
            for key, steps in (cancel_after or {}).items():
                if steps == number:
                    self.scheduler.cancel(key)
            if self.scheduler.is_idle:
                break
            for key, event in self.scheduler.step():
                self.note(key, event)
        self.prefixes.check()
        return self.answers

    def note(self, key: int, event: WorkerEvent) -> None:
        if isinstance(event, Token):
            self.answers[key].append(event.token_id)
        elif isinstance(event, Failed):
            self.failed.append(key)

    def restored(self, prompt: tuple[int, ...]) -> Hit | None:
        """Return the longest cached prefix of a prompt, read back if it is on disk."""
        restore = self.prefix_cache.acquire(prompt)
        while not restore.is_done:
            restore.step()
        return restore.hit

    def preload(self) -> None:
        while self.prefix_cache.preload() is not None:
            pass

    def spill(self) -> None:
        while self.prefix_cache.spill() is not None:
            pass

    def close(self) -> None:
        """Write every cached prefix to disk and close, as a worker does."""
        self.spill()
        self.prefix_cache.close()


class FailingOnce(BatchBackend):
    """A real batch in which one step raises after it has updated KV caches and masks."""

    steps_left = 0

    def step(self):
        outcomes = super().step()
        FailingOnce.steps_left -= 1
        if FailingOnce.steps_left == 0:
            raise RuntimeError("out of memory")
        return outcomes


def reference(model, prompt: tuple[int, ...], max_tokens: int = 8) -> list[int]:
    return [
        int(token) for token, _ in generate_step(mx.array(prompt), model, max_tokens=max_tokens)
    ]


def prompt_of(length: int, seed: int = 1) -> tuple[int, ...]:
    return tuple((at * at * seed + at) % 251 for at in range(length))
