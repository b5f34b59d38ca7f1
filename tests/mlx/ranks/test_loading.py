"""Loading a rank's part of a model: the memory that it takes at its peak, and what is refused."""

from pathlib import Path

import mlx.core as mx
import pytest

from pensieve.engine.protocol import Load
from pensieve.engine.ranks.sharding import load_shards
from pensieve.engine.worker.build import EngineParts, build_engine
from tests.mlx.ranks.test_sharding_table import OneOf
from tests.support import tiny_models
from tests.support.device import DEVICE

LAYER_BYTES = 4 * (4 * 256**2 + 3 * 256 * 1024)
SIZES = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 12}
HEADS = {"num_attention_heads": 8, "num_key_value_heads": 8}


def test_loading_takes_a_layer_more_than_the_part_that_stays(tmp_path: Path) -> None:
    folder = tiny_models.build("llama", tmp_path, **SIZES, **HEADS)
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    model = load_shards(folder, DEVICE, group=OneOf(2, 1), part_bytes=LAYER_BYTES)
    part, peak = mx.get_active_memory() - before, mx.get_peak_memory() - before
    assert part < 0.55 * 12 * LAYER_BYTES + 4 * model.model.embed_tokens.weight.size
    assert peak < 1.1 * (part + LAYER_BYTES)


def test_a_model_that_so_many_cannot_share_is_refused_before_its_weights_are_read(
    tmp_path: Path,
) -> None:
    folder = tiny_models.build("llama", tmp_path, num_attention_heads=2, num_key_value_heads=2)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="this Llama has 2 attention heads, not a multiple of 4"):
        load_shards(folder, DEVICE, group=OneOf(4))


def test_the_engine_keeps_to_the_least_that_any_rank_has(tmp_path: Path) -> None:
    folder = tiny_models.build("llama", tmp_path)
    asked: list[str] = []

    def least(name: str, value: int) -> int:
        asked.append(name)
        return min(value, 768) if name == "context" else value

    context = build_engine(
        Load(str(folder), DEVICE, has_speculation=False), parts=EngineParts(least=least)
    )
    for close in (context.scheduler.close, context.grammar_queue.close, context.close):
        close()
    assert context.context_tokens == 768
    assert asked == ["ragged caches", "kv bits", "kv bytes", "context", "scores bytes", "batches"]
