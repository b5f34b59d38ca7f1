"""What a model gets of a machine's memory, before anything is loaded."""

from dataclasses import replace
from pathlib import Path

import pytest

from pensieve.machine import Machine
from pensieve.models.cards import card_of
from pensieve.models.catalog import LocalModel, find
from pensieve.models.fit import fit, room_here, room_of_mac
from pensieve.models.shape import PHI_3_MINI_SHAPE
from pensieve.paths import under_home
from pensieve.settings import Settings

GIB = 2**30
GB = 10**9


def mac(memory_gib: int) -> Machine:
    return Machine("Darwin", "arm64", "3.13.1", macos="26.1", memory_bytes=memory_gib * GIB)


SETTINGS = Settings(under_home(Path("/nowhere")))
LINUX = Machine("Linux", "x86_64", "3.13.1", memory_bytes=32 * GIB)


@pytest.mark.parametrize(("memory_gib", "bits"), [(8, 8), (16, 8), (24, 8), (36, None), (64, None)])
def test_full_precision_is_taken_where_it_holds_enough(memory_gib: int, bits: int | None) -> None:
    assert fit(PHI_3_MINI_SHAPE, room_of_mac(memory_gib * GIB)).precision.bits == bits


def test_a_16_gb_mac_keeps_everything_below_12_gb() -> None:
    assert room_here(mac(16), SETTINGS).limit_bytes <= 12 * GB


def test_what_is_asked_for_comes_before_what_the_machine_has() -> None:
    room = room_here(mac(16), replace(SETTINGS, memory_gb=5.0, kv_bits=4))
    assert room.limit_bytes == 5 * GB
    fitted = fit(PHI_3_MINI_SHAPE, room)
    assert (fitted.precision.bits, fitted.reason) == (4, "4-bit, as asked for")
    assert room_here(LINUX, replace(SETTINGS, memory_gb=2.0)).limit_bytes == 2 * GB


def test_heads_that_cannot_be_quantized_are_kept_whole() -> None:
    room = room_here(mac(16), replace(SETTINGS, kv_bits=8))
    fitted = fit(replace(PHI_3_MINI_SHAPE, head_dim=80), room)
    assert fitted.precision.bits is None
    assert fitted.reason == "full precision: heads of 80 values cannot be quantized"


def test_a_context_is_never_more_than_the_model_was_built_for() -> None:
    assert fit(PHI_3_MINI_SHAPE, room_of_mac(500 * GIB)).context_tokens == 131_072


def test_what_does_not_fit_gets_no_context_and_says_what_it_needs() -> None:
    card = card_of(find("qwen3-coder-next"))
    assert card is not None
    fitted = fit(card.shape, room_of_mac(16 * GIB))
    assert fitted.context_tokens == 0
    assert fitted.needs_bytes > 44 * GB


def test_a_processor_computes_with_four_bytes_a_weight() -> None:
    """As engine/weights.py does: SmolLM2's 98 MB are 0.54 GB there."""
    card = card_of(find("smollm2-135m"))
    assert card is not None
    fitted = fit(card.shape, room_here(LINUX, replace(SETTINGS, device="cpu")))
    assert 0.4 * GB < fitted.weights_bytes < 0.75 * GB
    assert fitted.precision.bits is None
    assert fitted.token_bytes == 2 * 30 * 3 * 64 * 4


def test_a_folder_has_no_card(tmp_path) -> None:
    assert card_of(LocalModel("model", tmp_path)) is None
