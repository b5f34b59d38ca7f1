# pyright: basic
"""Builds a worker's engine: weights, memory plan, caches, scheduler, disk prefix cache. Loads MLX.

Called once by worker.py.
"""

import logging
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import mlx.core as mx  # noqa: TID253

from pensieve.atomic_files import exclude_from_backups
from pensieve.engine.disk.block_store import QUOTA_FILE, BlockStore, StoreLimits, default_limits
from pensieve.engine.disk.speculation_record import store_state
from pensieve.engine.disk.write_quota import DailyWriteQuota
from pensieve.engine.generation import SpeculationState
from pensieve.engine.grammar.compiler import GrammarCompiler
from pensieve.engine.long_operations import (
    COMPILING_S,
    TRYING_S,
    Announce,
    Platform,
    StepAnnouncer,
    announce_nothing,
)
from pensieve.engine.model.batch import BatchBackend
from pensieve.engine.model.cache_maker import CacheMaker, supports_batching
from pensieve.engine.model.disk_prefix_cache import DiskPrefixCache
from pensieve.engine.model.kv.rewinding import can_rewind
from pensieve.engine.model.mtp.head import MtpHead, load_head
from pensieve.engine.model.vision.loading import open_sight
from pensieve.engine.model.vision.sight import Sight
from pensieve.engine.planning.memory_plan import (
    FULL_BITS,
    MAX_CHUNK_TOKENS,
    Least,
    MemoryPlan,
)
from pensieve.engine.protocol import Load, Preloaded
from pensieve.engine.scheduling.disk_tier import NoDiskTier
from pensieve.engine.scheduling.pixel_desk import PixelDesk
from pensieve.engine.scheduling.prefill_chunks import METAL_PAIRS, AttentionScoresBudget, ChunkSizer
from pensieve.engine.scheduling.prefix_cache import PrefixCache
from pensieve.engine.scheduling.preload import Preload
from pensieve.engine.scheduling.request_queue import QueueLimits
from pensieve.engine.scheduling.restore import ThrottledRestore
from pensieve.engine.scheduling.scheduler import Scheduler
from pensieve.engine.scheduling.tiered_prefix_cache import TieredPrefixCache
from pensieve.engine.speculation.cost_curve import CurveKey
from pensieve.engine.speculation.draft_source import TILE_ROWS
from pensieve.engine.speculation.drafter import Speculation
from pensieve.engine.worker.context import WorkerContext
from pensieve.engine.worker.drafting import speculation_of, step_curve
from pensieve.engine.worker.memory_pressure import pressure_reader
from pensieve.engine.worker.memory_relief import MemoryRelief
from pensieve.engine.worker.parts import ALONE, WHOLE, EngineParts, ModelShare
from pensieve.engine.worker.planned_caches import planned_caches
from pensieve.engine.worker.stats import StatsReader
from pensieve.engine.worker.step_times import (
    LEAST_WIDTHS,
    LEAST_WIDTHS_WITH_HEAD,
    StepTimer,
    head_seconds,
)
from pensieve.engine.worker.step_times import VERSION as STEP_TIMES_VERSION
from pensieve.engine.worker.warmup import (
    CHUNK_TOKENS,
    MAX_SECONDS,
    FixedChunks,
    prompts_of,
    warm_up,
)
from pensieve.private_files import make_folder
from pensieve.settings.resolve import Device

_log = logging.getLogger("pensieve.engine")

# Prompt tokens of a chunk while nothing decodes, if time and memory allow them. A CPU processes
# about a hundred a second.
MAX_CHUNK: dict[Device, int] = {"gpu": MAX_CHUNK_TOKENS, "cpu": 128}
# Increase whenever the stored format, or how KV caches are computed, changes.
STORE_VERSION = 4


def build_engine(
    load: Load,
    announce: Announce = announce_nothing,
    report: Callable[[Preloaded], None] = lambda _: None,
    parts: EngineParts = ALONE,
) -> WorkerContext:
    """Load the model and build the engine around it; announce each part before it begins.

    Raises whatever mlx-lm raises for a model that does not load, and ValueError if no prompt fits.
    """
    folder, device = Path(load.model_folder), cast("Device", load.device)
    grammars = GrammarCompiler.of(folder / "tokenizer.json")
    model = parts.load_weights(folder, device, announce)
    head = _head(model, load, parts.share, announce)
    make_caches, plan, may_see = planned_caches(
        model, load, announce, head.nbytes if head else 0, parts
    )
    fingerprint = fingerprint_of(folder, plan, device, load.prefix_salt, parts.share)
    platform = _platform(device)
    chunks = _chunks(plan, device)
    store = _store(load, fingerprint)
    own_tier = DiskPrefixCache(store, make_caches, fingerprint) if store else NoDiskTier()
    disk_tier = parts.disk_tier(own_tier)
    memory_tier = PrefixCache(fingerprint)
    new_preload = partial(Preload, memory_tier, disk_tier, plan.budget, clock=parts.clock)
    prefix_cache = TieredPrefixCache(
        memory_tier,
        disk_tier,
        lambda restore: ThrottledRestore(restore, chunks, announce, parts.clock),
        new_preload(announce=announce, report=report) if load.has_preload else None,
    )
    sight = _sight(make_caches, load, announce) if may_see else None
    limits = replace(_queue_limits(make_caches, announce, parts.least), sees=sight is not None)
    announcer = StepAnnouncer(announce, COMPILING_S[platform])
    _prepare_kernels(make_caches, platform, limits.max_batch, announcer, parts.clock)
    announce("measuring its steps", TRYING_S)
    state, speculation = _speculation(load, make_caches, fingerprint, head, parts)
    limits = replace(limits, step_tokens=TILE_ROWS) if speculation else limits
    backend = partial(parts.backend, model, make_caches, chunks, grammars.matcher, announcer)
    scheduler = Scheduler(
        partial(backend, speculation=speculation, sight=sight), prefix_cache, plan.budget, limits
    )
    queue = parts.grammar_queue(grammars.prepare)
    return WorkerContext(
        scheduler,
        plan.context_tokens,
        queue,
        StatsReader(plan, scheduler, prefix_cache, store, grammars, queue).read,
        prefix_cache.spill,
        prefix_cache.preload,
        _relief(scheduler, prefix_cache, parts, sight).step,
        prefix_cache.close,
        state,
        parts.clock,
        limits.sees,
        sight.desk if sight else PixelDesk(),
    )


def _sight(make_caches: CacheMaker, load: Load, announce: Announce) -> Sight | None:
    folder, device = Path(load.model_folder), cast("Device", load.device)
    return open_sight(make_caches.model, folder, device, announce)


def _relief(
    scheduler: Scheduler, prefix_cache: TieredPrefixCache, parts: EngineParts, sight: Sight | None
) -> MemoryRelief:
    release = sight.release if sight else mx.clear_cache
    pressure = parts.read_pressure(pressure_reader())
    return MemoryRelief(scheduler, prefix_cache, release, pressure, parts.clock)


def _head(model: Any, load: Load, share: ModelShare, announce: Announce) -> MtpHead | None:
    # Its drafts need the logits of the whole vocabulary, of which a rank may have a part.
    if not load.has_speculation or share.ranks > 1:
        return None
    return load_head(model, Path(load.model_folder), cast("Device", load.device), announce)


def _chunks(plan: MemoryPlan, device: Device) -> ChunkSizer:
    scores = AttentionScoresBudget(plan.scores_bytes, plan.pair_bytes)
    return ChunkSizer(MAX_CHUNK[device], scores, METAL_PAIRS if _platform(device) == "metal" else 0)


def _platform(device: Device) -> Platform:
    if device == "cpu":
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


def _prepare_kernels(
    make_caches: CacheMaker,
    platform: Platform,
    rows: int,
    announcer: StepAnnouncer,
    clock: Callable[[], float],
) -> None:
    # Errors are only logged: they occur again in the first answer, which reports them.
    if not MAX_SECONDS[platform]:
        return
    began_s = clock()
    chunk = CHUNK_TOKENS[platform]
    preparing = announcer.with_prefix("preparing kernels: ")
    backend = BatchBackend(make_caches.model, make_caches, FixedChunks(chunk), announcer=preparing)
    try:
        steps = warm_up(backend, prompts_of(chunk, rows), MAX_SECONDS[platform], clock)
        _log.info("kernels prepared: %d steps in %.1f s", steps, clock() - began_s)
    except Exception as error:  # noqa: BLE001 - MLX may raise anything
        _log.warning("preparing kernels failed, the first answers are slower: %s", error)


def _speculation(
    load: Load,
    make_caches: CacheMaker,
    fingerprint: bytes,
    head: MtpHead | None,
    parts: EngineParts,
) -> tuple[SpeculationState, Speculation | None]:
    """Decide on drafts; store the decision unless it is the setting's."""
    if not load.has_speculation:
        return SpeculationState("setting"), None
    folder = Path(load.prefix_folder) if load.prefix_folder else None
    key = _curve_key(make_caches, _platform(cast("Device", load.device)), fingerprint)
    # Stored times of one rank are not those of another.
    times_folder = folder if parts.share == WHOLE else None
    timer = StepTimer(
        clock=parts.clock, least_widths=LEAST_WIDTHS_WITH_HEAD if head else LEAST_WIDTHS
    )
    state, speculation = _measured_speculation(make_caches, key, times_folder, timer, head)
    _log.info("speculation %s", state.text)
    if folder:
        store_state(folder, Path(load.model_folder), state)
    return state, speculation


def _curve_key(make_caches: CacheMaker, platform: Platform, fingerprint: bytes) -> CurveKey:
    bits = make_caches.precision.bits or FULL_BITS
    return CurveKey(fingerprint.hex(), platform, f"{version('mlx')}/{STEP_TIMES_VERSION}", bits)


def _measured_speculation(
    make_caches: CacheMaker,
    key: CurveKey,
    folder: Path | None,
    timer: StepTimer,
    head: MtpHead | None = None,
) -> tuple[SpeculationState, Speculation | None]:
    if not can_rewind(make_caches()):
        return SpeculationState("caches"), None
    try:
        curve = step_curve(make_caches, make_caches.max_tokens, key, folder, timer)
        head_s = head_seconds(head) if head else None
        if curve and head_s:
            plain_s = curve.contexts[0].seconds[1]
            _log.info("a draft of the MTP head takes %.0f %% of a step", 100 * head_s / plain_s)
    except Exception as error:  # noqa: BLE001 - MLX may raise anything
        _log.warning("measuring steps failed, there are no drafts: %s", error)
        curve, head_s = None, None
    return speculation_of(curve, _vocabulary_size(make_caches.model), head, head_s)


def _queue_limits(make_caches: CacheMaker, announce: Announce, least: Least) -> QueueLimits:
    announce("trying batches", TRYING_S)
    has_batches = least("batches", supports_batching(make_caches))
    limits = QueueLimits() if has_batches else QueueLimits(max_batch=1)
    return replace(limits, vocabulary_size=_vocabulary_size(make_caches.model))


def _vocabulary_size(model: Any) -> int:
    # The number of logits. MLX is lazy: reading a shape computes nothing.
    return model(mx.array([[1]])).shape[-1]


def fingerprint_of(
    folder: Path, plan: MemoryPlan, device: Device, salt: str = "", share: ModelShare = WHOLE
) -> bytes:
    """Return a digest of everything that makes stored KV caches valid for this model.

    Retrained weights have the size of the old ones, so the modification time counts too: reading
    them would take seconds.
    """
    statuses = ((file.name, file.stat()) for file in folder.glob("*.safetensors"))
    weights = sorted((name, status.st_size, status.st_mtime_ns) for name, status in statuses)
    parts = [STORE_VERSION, device, plan.precision, weights, *([salt] if salt else [])]
    if share != WHOLE:
        parts.append(share)
    digest = blake2b(repr(parts).encode(), digest_size=16)
    for name in ("config.json", "model.safetensors.index.json", "pensieve.json"):
        file = folder / name
        digest.update(file.read_bytes() if file.exists() else b"-")
    return digest.digest()


def _store(load: Load, fingerprint: bytes) -> BlockStore | None:
    """Open the store; return None if there is no folder for it or the disk refuses."""
    if load.prefix_folder is None:
        return None
    root, allowed = Path(load.prefix_folder), load.limits
    name = re.sub(r"[^\w.-]", "_", Path(load.model_folder).name, flags=re.ASCII)
    try:
        make_folder(root)
        exclude_from_backups(root)
        cap_bytes, daily_bytes = allowed.prefix_disk_bytes, allowed.daily_write_bytes
        default = default_limits(_free_bytes(root))
        limits = StoreLimits(
            (default.cap_bytes if cap_bytes is None else cap_bytes) // allowed.engines,
            (default.daily_bytes if daily_bytes is None else daily_bytes) // allowed.engines,
        )
        quota = DailyWriteQuota(root / QUOTA_FILE)
        return BlockStore(root / f"{name}-{fingerprint.hex()}", limits, quota)
    except OSError as error:
        _log.warning(
            "opening the disk prefix cache failed, prefixes are cached in memory only: %s", error
        )
        return None


def _free_bytes(root: Path) -> int:
    """Return the bytes free on that disk, with those of the stored blocks counted as free."""
    stored = sum(file.stat().st_size for file in root.glob("*/*"))
    return shutil.disk_usage(root).free + stored
