"""One rank of models on MLX's ring: prints what it computes. Run by test_shards.py.

one_rank.py RANK ADDRESSES FAMILIES FOLDER…   (ADDRESSES: JSON, each rank's "ip:port"; FAMILIES:
JSON, the config's fields by name of the family, for models that exist in memory only)
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.utils import load_model

from pensieve.engine.model.cache_maker import CacheMaker, supports_batching, supports_ragged_kv
from pensieve.engine.model.loading import load_weights
from pensieve.engine.planning.hostfile import Rendezvous
from pensieve.engine.ranks.rendezvous import join
from pensieve.engine.ranks.sharding import load_shards, shard
from tests.support import tiny_architectures

PROMPT = [(7 * place) % 249 + 1 for place in range(40)]


def main(
    rank: int, addresses: list[str], families: dict[str, dict[str, Any]], folders: list[Path]
) -> None:
    group = None
    if len(addresses) > 1:
        group = join(Rendezvous("ring", tuple((address,) for address in addresses)), rank)
        assert (group.rank(), group.size()) == (rank, len(addresses))
    report = {folder.name: answer(folder, group) for folder in folders}
    for family, fields in families.items():
        model = tiny_architectures.build(family, fields)
        if group:
            shard(model, group)
        report[family] = report_of(model, len(addresses))
    report["as stored"] = report_of(as_stored(folders[0], group), 1)
    sys.stdout.write(json.dumps(report))
    sys.stdout.flush()
    os._exit(0)


def answer(folder: Path, group: Any) -> dict[str, Any]:
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    model = load_shards(folder, "cpu", group=group) if group else load_weights(folder, "cpu")
    held, peak = mx.get_active_memory() - before, mx.get_peak_memory() - before
    return report_of(model, group.size() if group else 1) | {"held": held, "peak": peak}


def as_stored(folder: Path, group: Any) -> Any:
    """Return the model with its quantized layers, which `load_weights` expands on Linux."""
    model, _ = load_model(folder, lazy=True)
    if group:
        shard(model, group)
    return model


def report_of(model: Any, ranks: int) -> dict[str, Any]:
    make_caches = CacheMaker(model, supports_ragged_kv(model), ranks=ranks)
    batch = [cache.merge([cache]) for cache in make_caches()]
    logits = model(mx.array([PROMPT]), cache=batch)[:, -1]
    tokens: list[int] = []
    for _ in range(16):
        tokens.append(int(mx.argmax(logits).item()))
        after = logits
        logits = model(mx.array([[tokens[-1]]]), cache=batch)[:, -1]
    drafts = model(mx.array([[5, 6, 7, 8]]), cache=batch)[0, -1]
    return {
        "logits": after[0].tolist() + drafts.tolist(),
        "tokens": tokens,
        "is_ragged": make_caches.is_ragged,
        "has_batches": supports_batching(make_caches),
    }


if __name__ == "__main__":
    mx.set_default_device(mx.cpu)
    main(
        int(sys.argv[1]), *map(json.loads, sys.argv[2:4]), [Path(folder) for folder in sys.argv[4:]]
    )
