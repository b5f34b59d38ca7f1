"""Logits of chosen tokens alone equal those among the logits of all."""

import mlx.core as mx
import pytest

from pensieve.engine.model.loading import logit_rows_of
from tests.support import tiny_architectures


@pytest.mark.parametrize("family", tiny_architectures.FAMILIES)
@pytest.mark.parametrize("is_tied", [False, True])
def test_chosen_rows_equal_those_of_all(family: str, is_tied: bool) -> None:
    model = tiny_architectures.build(family, tie_word_embeddings=is_tied)
    tokens = mx.array([[3, 1, 4, 1, 5], [2, 7, 1, 8, 2]])
    whole = model(tokens).reshape(10, 1, -1)
    names = set(dict(model.named_modules()))
    rows = logit_rows_of(model)
    assert rows is not None
    with rows.only([4, 9, 0]):
        chosen = model(tokens)
    assert mx.allclose(chosen, whole[mx.array([4, 9, 0])], atol=1e-4, rtol=1e-4)
    assert mx.array_equal(model(tokens).reshape(10, 1, -1), whole)
    assert set(dict(model.named_modules())) == names


def test_rows_of_a_model_are_shared_by_all_who_ask() -> None:
    model = tiny_architectures.build("llama")
    assert logit_rows_of(model) is logit_rows_of(model)


def test_rows_are_whole_again_after_a_failed_pass() -> None:
    model = tiny_architectures.build("llama")
    rows = logit_rows_of(model)
    assert rows is not None
    with pytest.raises(ZeroDivisionError), rows.only([0]):
        raise ZeroDivisionError
    assert model(mx.array([[1, 2, 3]])).shape[:2] == (1, 3)


def test_model_without_an_output_layer_has_no_rows() -> None:
    def model(tokens: mx.array, cache: object = None) -> mx.array:
        return mx.zeros((*tokens.shape, 5))

    assert logit_rows_of(model) is None
