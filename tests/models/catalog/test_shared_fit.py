"""Estimates of one model over several Macs: the one with the least room decides."""

import json
from pathlib import Path
from typing import Any

import pytest

from pensieve.engine.planning.attention_shape import ModelShape, shape_from
from pensieve.errors import ModelUnsupportedError
from pensieve.machine import GIB
from pensieve.models.catalog.cards import CARDS
from pensieve.models.catalog.memory_fit import estimate_fit, memory_limit_of_mac
from pensieve.models.catalog.shared_fit import SharedFit, estimate_shared_fit, shared_fit_of
from tests.packaging.project import ROOT

CARDS_BY_NAME = {card.model.name: card for card in CARDS}
QWEN3_32B = {
    "model_type": "qwen3",
    "hidden_size": 5120,
    "num_hidden_layers": 64,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 25_600,
    "vocab_size": 151_936,
    "max_position_embeddings": 131_072,
    "quantization": {"group_size": 64, "bits": 4},
}
SHAPE = shape_from(QWEN3_32B, 18_400_000_000)
# What splits them, of the published configs; the cards have the rest.
QWEN3_8_27B = {
    "model_type": "qwen3_5",
    "text_config": {"hidden_size": 5120, "num_hidden_layers": 64, "vocab_size": 248_320},
}
GPT_OSS_120B = {
    "model_type": "gpt_oss",
    "hidden_size": 2880,
    "num_hidden_layers": 36,
    "num_local_experts": 128,
    "vocab_size": 201_088,
}
DOCUMENTED: dict[str, tuple[ModelShape, dict[str, Any]]] = {
    "Qwen3.8-27B": (CARDS_BY_NAME["qwen3.8-27b"].shape, QWEN3_8_27B),
    "Qwen3-32B": (SHAPE, QWEN3_32B),
    "gpt-oss-120b": (CARDS_BY_NAME["gpt-oss-120b"].shape, GPT_OSS_120B),
}


def fit_on(*memory_gib: int) -> SharedFit:
    limits = [memory_limit_of_mac(gib * GIB) for gib in memory_gib]
    return estimate_shared_fit(SHAPE, QWEN3_32B, limits)


def test_two_macs_hold_what_one_cannot() -> None:
    assert estimate_fit(SHAPE, memory_limit_of_mac(16 * GIB)).context_tokens == 0
    assert estimate_fit(SHAPE, memory_limit_of_mac(24 * GIB)).context_tokens == 0
    fit = fit_on(24, 24)
    assert fit.context_tokens > 30_000
    assert fit.describe() == f"about {fit.context_tokens // 1000} 000 tokens"
    assert fit_on(8, 8).describe() == "no room for a prompt"


def test_the_smallest_mac_decides_on_context_and_precision() -> None:
    fit = fit_on(64, 24)
    assert fit.narrowest == 1
    assert fit.context_tokens == fit_on(24, 24).context_tokens
    assert {one.precision.bits for one in fit.machines} == {8}


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_more_macs_never_hold_less(ranks: int) -> None:
    assert fit_on(*[24] * ranks).context_tokens >= fit_on(*[24] * (ranks // 2 or 1)).context_tokens


def documented_row(memory_gib: int) -> str:
    limit = memory_limit_of_mac(memory_gib * GIB)
    fits = (estimate_shared_fit(*model, [limit] * 2) for model in DOCUMENTED.values())
    cells = (fit.describe() if fit.context_tokens else "-" for fit in fits)
    return f"| {memory_gib} GB | {' | '.join(cells)} |"


@pytest.mark.parametrize("memory_gib", [16, 24, 32, 48, 64])
def test_the_documented_context_of_two_macs_is_what_is_planned(memory_gib: int) -> None:
    page = (ROOT / "docs/several-macs.md").read_text(encoding="utf-8")
    assert f"| each Mac | {' | '.join(DOCUMENTED)} |" in page
    assert documented_row(memory_gib) in page


def test_a_model_is_refused_by_its_folder_before_a_weight_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN3_32B))
    limit = memory_limit_of_mac(64 * GIB)
    assert shared_fit_of(tmp_path, [limit] * 2).context_tokens == 131_072
    with pytest.raises(ModelUnsupportedError, match="2, 4 or 8 machines can share Qwen3"):
        shared_fit_of(tmp_path, [limit] * 3)
