"""Tests which heads MLX's attention fuses by device, and the memory of unfused scores."""

from importlib import metadata

import pytest

from pensieve.engine.planning.fused_attention import READ_FROM_MLX, Backend, is_fused, pair_bytes


def test_table_matches_the_installed_mlx_version() -> None:
    """Another MLX may fuse other heads.

    Read its scaled_dot_product_attention.cpp, then update `READ_FROM_MLX`.
    """
    assert metadata.version("mlx") == READ_FROM_MLX


@pytest.mark.parametrize(
    ("backend", "head_dim", "tokens", "expected"),
    [
        ("metal", 96, 2048, True),
        ("metal", 128, 9, True),
        ("metal", 256, 2048, False),
        ("metal", 192, 2048, False),
        ("metal", 112, 2048, False),
        ("metal", 256, 1, True),
        ("metal", 192, 1, False),
        ("metal", 80, 1, False),
        ("metal_nax", 256, 1024, True),
        ("metal_nax", 256, 1023, False),
        ("metal_nax", 192, 2048, False),
        ("cuda", 128, 2048, True),
        ("cuda", 256, 2048, False),
        ("cpu", 64, 2048, False),
        ("cpu", 64, 1, False),
    ],
)
def test_is_fused_follows_the_table(
    backend: Backend, head_dim: int, tokens: int, expected: bool
) -> None:
    assert is_fused(backend, head_dim, tokens) == expected


@pytest.mark.parametrize(
    ("backend", "head_dim", "heads", "expected"),
    [
        ("metal", 128, 32, 0),
        ("metal", 256, 16, 33),
        ("metal", 40, 16, 33),
        # Fused from 1024 tokens on, but the last chunk of a prompt is shorter.
        ("metal_nax", 256, 16, 33),
        ("cpu", 64, 9, 37),
        ("metal", 0, 0, 0),
    ],
)
def test_unfused_scores_cost_every_query_head_per_pair(
    backend: Backend, head_dim: int, heads: int, expected: int
) -> None:
    assert pair_bytes(backend, head_dim, heads) == expected
