# pyright: basic
"""The one place where a worker is put together: weights, memory plan, caches, scheduler, archive. Loads MLX."""

import logging
import shutil
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import cast

from pensieve.engine.anteroom import Anteroom
from pensieve.engine.archive import DiskArchive
from pensieve.engine.batch import BatchBackend
from pensieve.engine.block_store import BlockStore, StoreLimits
from pensieve.engine.caches import CacheMaker, takes_ours
from pensieve.engine.chunks import ChunkSizer
from pensieve.engine.grammars import Grammars
from pensieve.engine.memory import MemoryPlan, plan_memory
from pensieve.engine.prefix_cache import PrefixCache
from pensieve.engine.protocol import Load
from pensieve.engine.scheduler import Limits, Scheduler
from pensieve.engine.weights import load_weights
from pensieve.engine.worker import Work
from pensieve.settings import Device

_log = logging.getLogger("pensieve.engine")

# Prompt tokens of a chunk when nobody decodes. A CPU processes about a hundred a second.
LARGEST_CHUNK: dict[Device, int] = {"gpu": 2048, "cpu": 128}
# Raised whenever what is stored, or how KV caches are computed, changes.
STORE_VERSION = 2
MOST_STORED_BYTES = 20 * 10**9
DAILY_WRITTEN_BYTES = 50 * 10**9


def assemble(load: Load) -> Work:
    """Load the model and build everything around it. Raises what mlx-lm raises for a model that does not load."""
    folder, device = Path(load.model_folder), cast("Device", load.device)
    grammars = Grammars.of(folder / "tokenizer.json")
    model = load_weights(folder, device)
    full = CacheMaker(model, takes_ours(model))
    plan = plan_memory(full, device)
    make_caches = replace(full, precision=plan.precision)
    fingerprint = fingerprint_of(folder, plan, device)
    prefixes = PrefixCache(fingerprint)
    chunks = ChunkSizer(LARGEST_CHUNK[device])
    limits = Limits()
    archive = _archive(load.prefix_folder, make_caches, fingerprint)
    scheduler = Scheduler(
        lambda: BatchBackend(model, make_caches, chunks, grammars.matcher),
        prefixes,
        plan.budget,
        limits,
        archive,
    )
    anteroom = Anteroom(grammars.prepare)
    if archive is None:
        return Work(scheduler, plan.budget.context_tokens, anteroom)
    return Work(
        scheduler,
        plan.budget.context_tokens,
        anteroom,
        spill=lambda: archive.spill(prefixes),
        close=archive.close,
    )


def fingerprint_of(folder: Path, plan: MemoryPlan, device: Device) -> bytes:
    """Of everything that must be equal for stored KV caches to be this model's own."""
    weights = sorted((file.name, file.stat().st_size) for file in folder.glob("*.safetensors"))
    parts = [STORE_VERSION, device, plan.precision, weights]
    digest = blake2b(repr(parts).encode(), digest_size=16)
    for name in ("config.json", "model.safetensors.index.json", "pensieve.json"):
        file = folder / name
        digest.update(file.read_bytes() if file.exists() else b"-")
    return digest.digest()


def _archive(
    prefix_folder: str | None, make_caches: CacheMaker, fingerprint: bytes
) -> DiskArchive | None:
    """None where nothing is to be kept, or the disk does not let us."""
    if prefix_folder is None:
        return None
    folder = Path(prefix_folder) / fingerprint.hex()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        cap_bytes = min(MOST_STORED_BYTES, shutil.disk_usage(folder).free // 10)
        store = BlockStore(folder, StoreLimits(cap_bytes, DAILY_WRITTEN_BYTES))
    except OSError as error:
        _log.warning("prefixes are not kept on disk: %s", error)
        return None
    return DiskArchive(store, make_caches, fingerprint)
