"""Estimates of context and memory before a model is loaded."""

from dataclasses import replace
from pathlib import Path

import pytest

from pensieve.engine.planning.device_limits import working_set_bytes
from pensieve.engine.planning.memory_plan import AMPLE_CONTEXT_TOKENS, plan
from pensieve.engine.planning.tower_files import MIN_SEEING_TOKENS
from pensieve.machine import Machine
from pensieve.models.catalog.cards import CARDS, ModelCard, card_of
from pensieve.models.catalog.expected_model import shape_by_name
from pensieve.models.catalog.find import find
from pensieve.models.catalog.memory_fit import (
    estimate_fit,
    estimate_fit_at,
    memory_limit_here,
    memory_limit_of_mac,
    memory_limit_on,
)
from pensieve.models.catalog.sources import LocalModel
from pensieve.models.folder.config_shape import PHI_3_MINI_SHAPE
from pensieve.paths import under_home
from pensieve.settings.resolve import Settings

GIB = 2**30
GB = 10**9


def mac(memory_gib: int) -> Machine:
    return Machine("Darwin", "arm64", "3.13.1", macos="26.1", memory_bytes=memory_gib * GIB)


SETTINGS = Settings(under_home(Path("/nowhere")))
LINUX = Machine("Linux", "x86_64", "3.13.1", memory_bytes=32 * GIB)


@pytest.mark.parametrize(("memory_gib", "bits"), [(8, 8), (16, 8), (24, 8), (32, None), (64, None)])
def test_full_precision_is_chosen_if_the_context_suffices(
    memory_gib: int, bits: int | None
) -> None:
    assert (
        estimate_fit(PHI_3_MINI_SHAPE, memory_limit_of_mac(memory_gib * GIB)).precision.bits == bits
    )


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.model.name)
@pytest.mark.parametrize("chip", ["Apple M1", "Apple M2 Pro", "Apple M3", "Apple M4", "Apple M5"])
@pytest.mark.parametrize("bits", [None, 16, 8, 4])
def test_all_parts_of_a_plan_together_stay_within_the_limit(
    card: ModelCard, chip: str, bits: int | None
) -> None:
    """For every model on every Mac: a single request with the full context fits into memory."""
    for memory_gib in (8, 16, 18, 24, 32, 36, 48, 64, 96, 128, 192, 256, 512):
        for macos in ("14.6", "26.1", "26.2"):
            machine = replace(mac(memory_gib), chip=chip, macos=macos)
            device = memory_limit_on(machine).device
            planned = plan(card.shape.facts(), device, bits)
            if not planned.context_tokens:
                continue
            assert planned.total_bytes <= device.limit_bytes
            assert device.limit_bytes <= working_set_bytes(machine)
            assert planned.context_tokens <= card.shape.context_tokens
            # No memory stays unused either, unless the model supports no longer context.
            more = replace(device, limit_bytes=device.limit_bytes - planned.total_bytes)
            step = planned.total_bytes / planned.context_tokens * 300
            is_whole = planned.context_tokens == card.shape.context_tokens
            assert is_whole or more.limit_bytes < step


@pytest.mark.parametrize("memory_gib", [8, 16, 24, 32, 48, 64, 128, 512])
def test_an_estimate_by_memory_equals_the_one_on_the_mac(memory_gib: int) -> None:
    for card in CARDS:
        there = estimate_fit(card.shape, memory_limit_of_mac(memory_gib * GIB))
        assert estimate_fit(card.shape, memory_limit_here(mac(memory_gib), SETTINGS)) == there
        assert estimate_fit(card.shape, memory_limit_on(mac(memory_gib))) == there


def test_the_needed_memory_gives_enough_context() -> None:
    for card in CARDS:
        fitted = estimate_fit(card.shape, memory_limit_of_mac(96 * GIB))
        limit = memory_limit_here(
            mac(96), replace(SETTINGS, memory_gb=fitted.needs_bytes / GB + 1e-6)
        )
        enough = min(AMPLE_CONTEXT_TOKENS, card.shape.context_tokens)
        assert estimate_fit_at(card.shape, limit, fitted.precision).context_tokens == enough


def test_a_16_gb_mac_keeps_everything_below_11_gb() -> None:
    assert memory_limit_here(mac(16), SETTINGS).limit_bytes <= 11 * GB


def test_a_requested_limit_precedes_the_machines() -> None:
    limit = memory_limit_here(mac(16), replace(SETTINGS, memory_gb=5.0, kv_bits=4))
    assert limit.limit_bytes == 5 * GB
    fitted = estimate_fit(PHI_3_MINI_SHAPE, limit)
    assert (fitted.precision.bits, fitted.reason) == (4, "4-bit, as asked for")
    assert memory_limit_here(LINUX, replace(SETTINGS, memory_gb=2.0)).limit_bytes == 2 * GB


def test_workers_share_the_limit() -> None:
    for settings in (SETTINGS, replace(SETTINGS, memory_gb=5.0)):
        whole = memory_limit_here(mac(16), settings).limit_bytes
        part = memory_limit_here(mac(16), replace(settings, workers=3)).limit_bytes
        assert whole - 3 < 3 * part <= whole


def test_unquantizable_heads_keep_full_precision() -> None:
    limit = memory_limit_here(mac(16), replace(SETTINGS, kv_bits=8))
    fitted = estimate_fit(replace(PHI_3_MINI_SHAPE, head_dim=80), limit)
    assert fitted.precision.bits is None
    assert fitted.reason == "full precision: heads of 80 values cannot be quantized"


def test_the_context_never_exceeds_the_models() -> None:
    assert estimate_fit(PHI_3_MINI_SHAPE, memory_limit_of_mac(500 * GIB)).context_tokens == 131_072


def test_a_model_that_does_not_fit_has_no_context_but_its_need() -> None:
    card = card_of(find("qwen3-coder-next"))
    assert card is not None
    fitted = estimate_fit(card.shape, memory_limit_of_mac(16 * GIB))
    assert fitted.context_tokens == 0
    assert fitted.needs_bytes > 45 * GB


def test_a_cpu_needs_four_bytes_per_weight() -> None:
    """As engine/model/loading.py does: SmolLM2's 98 MB are 0.54 GB there."""
    card = card_of(find("smollm2-135m"))
    assert card is not None
    fitted = estimate_fit(card.shape, memory_limit_here(LINUX, replace(SETTINGS, device="cpu")))
    assert 0.4 * GB < fitted.weights_bytes < 0.75 * GB
    assert fitted.precision.bits is None
    assert fitted.token_bytes == 2 * 30 * 3 * 64 * 4


def test_a_folder_has_no_card(tmp_path) -> None:
    assert card_of(LocalModel("model", tmp_path)) is None


@pytest.mark.parametrize(("memory_gib", "sees"), [(8, False), (16, True), (64, True)])
def test_a_model_sees_where_that_leaves_enough_context(memory_gib: int, sees: bool) -> None:
    settings = replace(SETTINGS, model="qwen3.5-4b")
    limit = memory_limit_of_mac(memory_gib * GIB)
    shape = shape_by_name(settings)
    blind = shape_by_name(replace(settings, pictures="off"))
    assert shape.sight_bytes > GB > blind.sight_bytes == 0
    fit, without = estimate_fit(shape, limit), estimate_fit(blind, limit)
    assert (fit.sight_bytes > 0) == sees
    assert fit.weights_bytes == without.weights_bytes
    if sees:
        assert MIN_SEEING_TOKENS <= fit.context_tokens <= without.context_tokens
    else:
        assert fit == without
    assert shape_by_name(replace(settings, hostfile="two.json")) == blind
    assert shape_by_name(replace(settings, model="phi-3-mini")).sight_bytes == 0
