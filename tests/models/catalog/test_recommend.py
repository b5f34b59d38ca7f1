"""Recommended models by measured quality, memory and the chip's bandwidth."""

import itertools
from pathlib import Path

import pytest

from pensieve.cli.lifecycle.model_suggestion import suggestion
from pensieve.machine import Machine
from pensieve.models.catalog.cards import CARDS, UNTRIED, card_of
from pensieve.models.catalog.chips import BANDWIDTHS_GB_S, bandwidth_gb_s
from pensieve.models.catalog.find import find
from pensieve.models.catalog.memory_fit import memory_limit_on
from pensieve.models.catalog.recommend import better, recommended, resolve_auto
from pensieve.models.catalog.sources import (
    AUTO_NAMES,
    BEST,
    CATALOG,
    FAST,
    EmbeddedModel,
    HubModel,
)
from pensieve.paths import under_home
from pensieve.settings.resolve import Settings

GIB = 2**30
LINUX = Machine("Linux", "x86_64", "3.13.1", memory_bytes=32 * GIB)
MEMORIES = (8, 16, 18, 24, 32, 36, 48, 64, 96, 128, 192, 512)
CHIPS = [
    f"Apple M{generation} {kind}".strip()
    for kind, generations in BANDWIDTHS_GB_S.items()
    for generation in generations
]


def mac(memory_gib: int, chip: str = "") -> Machine:
    memory_bytes = memory_gib * GIB
    return Machine("Darwin", "arm64", "3.13.1", macos="26.1", memory_bytes=memory_bytes, chip=chip)


def suited_to(memory_gib: int, chip: str, name: str) -> HubModel | EmbeddedModel:
    return resolve_auto(mac(memory_gib, chip), name)


@pytest.mark.parametrize(
    ("memory_gib", "chip", "best", "fast"),
    [
        (16, "Apple M1", "qwen3.5-9b", "qwen3.5-4b"),
        (16, "Apple M4", "qwen3.5-9b", "qwen3.5-4b"),
        (18, "Apple M3 Pro", "qwen3.5-9b", "qwen3.5-4b"),
        (24, "Apple M4", "qwen3.5-9b", "qwen3.5-4b"),
        (24, "Apple M4 Pro", "qwen3.5-9b", "qwen3.5-4b"),
        (36, "Apple M3 Pro", "qwen3.6-35b", "qwen3.6-35b"),
        (36, "Apple M4 Max", "qwen3.8-27b", "qwen3.6-35b"),
        (48, "Apple M4 Pro", "qwen3.6-35b", "qwen3.6-35b"),
        (48, "Apple M5 Pro", "qwen3.8-27b", "qwen3.6-35b"),
        (64, "Apple M1 Max", "qwen3.8-27b", "qwen3.6-35b"),
        (64, "Apple M2 Ultra", "qwen3.8-27b-8bit", "qwen3.6-35b"),
        (96, "Apple M3 Ultra", "qwen3.8-27b-8bit", "qwen3.6-35b"),
        (128, "Apple M5 Max", "qwen3.8-27b", "qwen3.6-35b"),
        (64, "not known", "qwen3.8-27b", "qwen3.6-35b"),
    ],
)
def test_auto_selects_the_best_agent_and_auto_fast_the_best_fast_one(
    memory_gib: int, chip: str, best: str, fast: str
) -> None:
    assert suited_to(memory_gib, chip, BEST).name == best
    assert suited_to(memory_gib, chip, FAST).name == fast


@pytest.mark.parametrize("chip", ["Apple M1 Max", "Apple M2 Max"])
def test_32_gb_and_a_max_are_enough_for_the_27b(chip: str) -> None:
    assert suited_to(32, chip, BEST).name == "qwen3.8-27b"


def test_a_slow_chip_with_32_gb_gets_no_dense_27b() -> None:
    for chip in ("Apple M1 Pro", "Apple M2 Pro", "Apple M4", "Apple M5"):
        assert suited_to(32, chip, BEST).name in {"qwen3.5-9b", "qwen3.6-35b"}


def test_weak_agents_are_never_selected_automatically() -> None:
    picked = {
        suited_to(memory, chip, name).name
        for memory, chip, name in itertools.product(MEMORIES, CHIPS, AUTO_NAMES)
    }
    # Phi-3-mini is the fallback if no model gets a sufficient context.
    assert picked <= {
        "phi-3-mini",
        "qwen3.5-4b",
        "qwen3.5-9b",
        "qwen3.6-35b",
        "qwen3.8-27b",
        "qwen3.8-27b-8bit",
    }


def test_more_memory_never_gets_a_worse_agent() -> None:
    for chip, name in itertools.product(CHIPS, AUTO_NAMES):
        ranks = [rank_of(suited_to(memory, chip, name)) for memory in MEMORIES]
        assert ranks == sorted(ranks, reverse=True), (chip, name)


def rank_of(model: HubModel | EmbeddedModel) -> int:
    card = card_of(model)
    assert card is not None
    return (card.quality.agent_rank if card.quality else None) or 1000


def test_without_a_sufficient_context_nothing_is_recommended() -> None:
    assert recommended(memory_limit_on(mac(4)), "Apple M1") is None
    assert suited_to(4, "Apple M1", BEST).name == "qwen3.5-4b"


def test_auto_selects_a_small_model_without_apple_silicon() -> None:
    assert resolve_auto(LINUX, BEST).name == "smollm2-135m"
    cuda = Machine("Linux", "x86_64", "3.13.1", memory_bytes=64 * GIB, has_mlx_cuda=True)
    assert resolve_auto(cuda, FAST).name == "phi-3-mini"
    assert {find(name) for name in AUTO_NAMES} <= set(CATALOG)


@pytest.mark.parametrize(
    ("chip", "bandwidth"),
    [
        ("Apple M1", 68),
        ("Apple M2 Pro", 200),
        ("Apple M4 Max", 410),
        ("Apple M3 Ultra", 819),
        ("Apple M5 Ultra", 819),
        ("Apple M9 Pro", 307),
        ("Apple processor", None),
        ("Intel(R) Core(TM) i9", None),
        ("", None),
    ],
)
def test_the_bandwidth_is_that_of_the_chip_or_of_the_newest_of_its_kind(
    chip: str, bandwidth: int | None
) -> None:
    assert bandwidth_gb_s(chip) == bandwidth


# suggestions


def chosen(model: str, tmp_path: Path) -> Settings:
    return Settings(under_home(tmp_path), model=model)


def test_the_suggestion_names_the_model_its_context_and_the_command(tmp_path: Path) -> None:
    text = suggestion(chosen("phi-3-mini", tmp_path), mac(64, "Apple M1 Max"))
    assert text == (
        "qwen3.8-27b works better with Claude Code on this Mac than phi-3-mini: it is the better"
        " agent,\nwith 262,144 tokens of context (16.1 GB). Make it the default:\n"
        "  pensieve use qwen3.8-27b"
    )


def test_on_8_gb_the_suggestion_is_the_longest_context_and_says_that_it_is_short(
    tmp_path: Path,
) -> None:
    text = suggestion(chosen("phi-3-mini", tmp_path), mac(8, "Apple M2"))
    assert text == (
        "No model fits this Mac's memory with the context that Claude Code needs to work well."
        "\nqwen3.5-4b has the longest: 19,200 tokens (3.1 GB). Make it the default:"
        "\n  pensieve use qwen3.5-4b"
    )
    assert suggestion(chosen("qwen3.5-4b", tmp_path), mac(8, "Apple M2")) is None


@pytest.mark.parametrize("model", ["qwen3.8-27b", "qwen3.8-27b-8bit", "owner/name", "no model"])
def test_nothing_is_suggested_for_the_best_or_an_unknown_model(tmp_path: Path, model: str) -> None:
    assert suggestion(chosen(model, tmp_path), mac(64, "Apple M1 Max")) is None


def test_nothing_is_suggested_without_metal(tmp_path: Path) -> None:
    assert suggestion(chosen("phi-3-mini", tmp_path), LINUX) is None
    assert better(find("phi-3-mini"), memory_limit_on(LINUX), "Apple M1 Max") is None


# the cards


def test_every_model_of_the_catalog_has_a_card_with_its_sources() -> None:
    assert tuple(card.model for card in CARDS) == CATALOG
    for card in CARDS:
        assert card.sources
        assert card.licence
        assert 0 < len(card.summary) <= 75
        assert card.shape.weights_bytes > 0
        assert card.shape.bits == (8 if card.model.name.endswith("8bit") else 4)
        assert card.shape.query_heads % card.shape.kv_heads == 0
        assert card.quality is None or str(card.quality)
    assert [card.model.name for card in CARDS if card.tried != UNTRIED] == [
        "phi-3-mini",
        "smollm2-135m",
    ]


def test_sizes_equal_the_hubs() -> None:
    """Rapid-MLX's model_sizes.json, October 2026: weights and tokenizer; of gpt-oss-120b and the
    8-bit one others' records.
    """
    sizes = {
        "qwen3-4b": 2.279,
        "qwen3.5-4b": 3.061,
        "qwen3.5-9b": 5.977,
        "gpt-oss-20b": 12.104,
        "qwen3.8-27b": 16.05,
        "qwen3.6-27b": 16.08,
        "qwen3-coder-30b": 17.197,
        "muse-glimmer-30b": 19.44,
        "qwen3.6-35b": 20.429,
        "qwen3.8-27b-8bit": 29.5,
        "qwen3-coder-next": 44.856,
        "gpt-oss-120b": 62.36,
    }
    by_name = {card.model.name: card.shape.weights_bytes / 1e9 for card in CARDS}
    for name, size in sizes.items():
        assert by_name[name] == pytest.approx(size, rel=0.01)


def test_pins_are_whole_commits() -> None:
    pinned = [model for model in CATALOG if isinstance(model, HubModel) and model.revision]
    assert [model.name for model in pinned] == ["qwen3.8-27b", "qwen3.6-35b", "qwen3.8-27b-8bit"]
    assert {len(model.revision or "") for model in pinned} == {40}
