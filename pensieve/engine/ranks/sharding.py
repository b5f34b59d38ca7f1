# pyright: basic
"""Loads one rank's part of a model: tensor parallelism, mostly by mlx-lm's own `shard` methods.

Which models, over how many ranks: engine/planning/sharding_table.py. The weights are opened
lazily, cut, and only then read, part by part, so that at no time more than a part of the whole
model is in memory next to this rank's weights.
"""

from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx  # noqa: TID253
from mlx.nn.layers.distributed import shard_linear  # noqa: TID253
from mlx.utils import tree_map  # noqa: TID253
from mlx_lm.models import phi3  # noqa: TID253

from pensieve.engine.long_operations import Announce, announce_nothing
from pensieve.engine.model.loading import open_weights, read_weights
from pensieve.engine.planning.mtp_files import config_of
from pensieve.engine.planning.sharding_table import obstacle
from pensieve.settings.resolve import Device

# Of the whole model's weights that are in memory at a time, next to this rank's. Of 747 MB on two
# ranks, loading takes 440 MB at its peak, of which 378 stay; in one part it took 636.
_PART_BYTES = 64 * 10**6


def load_shards(
    folder: Path,
    device: Device,
    announce: Announce = announce_nothing,
    *,
    group: Any,
    part_bytes: int = _PART_BYTES,
) -> Any:
    """Load the part of the model in `folder` of this rank of `group`, an `mx.distributed.Group`.

    Raises what `load_weights` raises, and ValueError for a model that so many cannot share.
    """
    if reason := obstacle(config_of(folder), group.size()):
        raise ValueError(reason)
    model = open_weights(folder, device)
    shard(model, group)
    read_weights(model, announce, part_bytes // group.size())
    mx.clear_cache()
    return model


def shard(model: Any, group: Any) -> None:
    """Reduce a model whose weights are not read yet to the part of one rank.

    Raises whatever MLX raises for a model that the table does not have.
    """
    if isinstance(model, phi3.Model):
        _shard_phi3(model, group)
    else:
        model.shard(group)
    # Some parts are views, which would keep the whole array in memory.
    model.update(tree_map(mx.contiguous, model.parameters()))


def _shard_phi3(model: Any, group: Any) -> None:
    """mlx-lm has no `shard` for it: queries, keys and values are one product, as are gate and
    up.
    """
    split = partial(shard_linear, sharding="all-to-sharded", group=group)
    join = partial(shard_linear, sharding="sharded-to-all", group=group)
    for layer in model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        queries = attention.n_heads * attention.head_dim
        keys = attention.n_kv_heads * attention.head_dim
        attention.qkv_proj = split(attention.qkv_proj, segments=[queries, queries + keys])
        attention.o_proj = join(attention.o_proj)
        attention.n_heads //= group.size()
        attention.n_kv_heads //= group.size()
        mlp.gate_up_proj = split(mlp.gate_up_proj, segments=2)
        mlp.down_proj = join(mlp.down_proj)
