"""Quantized layers that multiply the rows of a decode step as one matrix."""

import mlx.core as mx
import mlx.nn as nn
import pytest

from pensieve.engine.model.loading import FlatQuantizedLinear, flatten_products

pytestmark = pytest.mark.slow


class _Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.large = nn.Linear(64, 128)
        self.small = nn.Linear(64, 64)
        self.plain = nn.Linear(64, 128)
        self.embedding = nn.Embedding(128, 64)


def _quantized() -> _Layers:
    layers = _Layers()
    nn.quantize(layers, group_size=32, bits=4, class_predicate=lambda path, _: path != "plain")
    return layers


def test_only_large_quantized_layers_are_flattened() -> None:
    layers = _quantized()
    flatten_products(layers, min_weights=64 * 128)
    kinds = [type(layer) for layer in (layers.large, layers.small, layers.plain, layers.embedding)]
    assert kinds == [FlatQuantizedLinear, nn.QuantizedLinear, nn.Linear, nn.QuantizedEmbedding]


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (8, 1), (32, 1), (1, 9), (3, 4)])
def test_flat_product_has_the_values_and_the_shape_of_the_plain_one(shape: tuple[int, int]) -> None:
    layers = _quantized()
    rows = mx.random.normal((*shape, 64))
    expected = layers.large(rows)
    flatten_products(layers, min_weights=1)
    assert layers.large(rows).shape == (*shape, 128)
    assert mx.allclose(layers.large(rows), expected, atol=1e-5)


class _Recorder(nn.QuantizedLinear):
    """Keeps the shapes that reach the plain product."""

    def __init__(self) -> None:
        super().__init__(64, 128, group_size=32, bits=4)
        self.seen: list[tuple[int, ...]] = []

    def __call__(self, x: mx.array) -> mx.array:
        self.seen.append(x.shape)
        return super().__call__(x)


class _RecordedFlat(FlatQuantizedLinear, _Recorder):
    pass


def test_product_of_a_step_with_many_rows_is_one_matrix() -> None:
    layer = _RecordedFlat()
    layer(mx.zeros((8, 1, 64)))
    layer(mx.zeros((7, 1, 64)))
    assert layer.seen == [(1, 8, 64), (7, 1, 64)]
