"""The kernel tables of `make formula-check` for MLX's macOS wheels, and the parsers."""

import struct
from importlib import metadata
from pathlib import Path

import mlx
import pytest

from pensieve.engine.planning.memory_plan import group_size_for, precisions
from pensieve.models.catalog.cards import CARDS
from tests.packaging.project import script
from tests.packaging.test_lock import mac_versions

kernels = script("kernels")
STUBS = Path(next(iter(mlx.__path__)))


def metallib(*names: str) -> bytes:
    """Return the header and function list of a Metal library with these functions."""
    entries = b""
    for name in names:
        fields = b"NAME" + struct.pack("<H", len(name) + 1) + name.encode() + b"\0"
        fields += b"TYPE\x01\x00\x02ENDT"
        entries += struct.pack("<I", len(fields) + 4) + fields
    header = b"MTLB".ljust(24, b"\0") + struct.pack("<QQ", 88, len(entries))
    return header.ljust(88, b"\0") + struct.pack("<I", len(names)) + entries + b"bitcode"


def test_tables_were_read_from_the_locked_mlx() -> None:
    """On failure: the first lines of packaging/kernels.py say what to do."""
    assert mac_versions("requirements-macos.lock")["mlx"] == kernels.READ_FROM_MLX
    assert metadata.version("mlx") == kernels.READ_FROM_MLX


def test_function_names_of_a_metal_library_are_read() -> None:
    assert kernels.names_in(metallib("rope_float16", "argmax_int8")) == {
        "rope_float16",
        "argmax_int8",
    }


def test_a_metal_library_of_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="not a Metal library"):
        kernels.names_in(metallib("rope_float16").replace(b"NAME", b"XXXX"))


def test_head_dims_of_catalog_models_have_kernels() -> None:
    head_dims = {card.shape.head_dim for card in CARDS}
    assert head_dims <= {*kernels.PREFILL, *kernels.PREFILL_FORCED}
    assert head_dims <= set(kernels.DECODE)


def test_kv_precisions_have_kernels() -> None:
    quantizable = [dim for dim in kernels.DECODE if group_size_for(dim)]
    used = {
        (precision.group_size, precision.bits)
        for dim in quantizable
        for precision in precisions(dim)
        if precision.bits
    }
    assert used <= set(kernels.KV_GROUPS)
    names = kernels.needed(has_nax=False)
    for group, bits in used:
        assert f"affine_quantize_bfloat16_t_gs_{group}_b_{bits}" in names
        assert f"affine_dequantize_float16_t_gs_{group}_b_{bits}" in names


def test_the_nax_build_needs_more_kernels() -> None:
    assert kernels.needed(has_nax=False) < kernels.needed(has_nax=True)


def test_mlx_accepts_the_engines_parameters() -> None:
    stubs = {
        path: (STUBS.parent / path).read_text(encoding="utf-8") for path, _ in kernels.PARAMETERS
    }
    assert list(kernels.changed_parameters(stubs)) == []


def test_a_changed_parameter_is_reported() -> None:
    stubs = {path: "" for path, _ in kernels.PARAMETERS}
    stubs["mlx/core/fast.pyi"] = "def scaled_dot_product_attention(q, k, v, *, scale): ..."
    faults = list(kernels.changed_parameters(stubs))
    assert len(faults) == len(kernels.PARAMETERS)
    assert faults[0].startswith("mlx/core/fast.pyi: scaled_dot_product_attention(q k v scale)")
