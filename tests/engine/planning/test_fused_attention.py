"""Which heads MLX's attention fuses, by device; what it does not is counted. Held to the MLX that
the table was read from.
"""

from importlib import metadata

import pytest

from pensieve.engine.planning.fused_attention import READ_FROM_MLX, Backend, is_fused, pair_bytes


def test_the_table_was_read_from_the_mlx_that_is_installed() -> None:
    """Another MLX may fuse other heads: read its scaled_dot_product_attention.cpp again, then write
    its version here.
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
def test_heads_are_fused_as_read(
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
def test_scores_in_memory_cost_a_pair_of_tokens_all_query_heads(
    backend: Backend, head_dim: int, heads: int, expected: int
) -> None:
    assert pair_bytes(backend, head_dim, heads) == expected
