"""The size that a picture gets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.media.picture_size import MAX_RATIO, MAX_SIDE, PictureBounds, fitted_size

sides = st.integers(1, MAX_SIDE)


@pytest.mark.parametrize(
    ("size", "fitted"),
    [
        ((1280, 720), (1280, 704)),
        ((1920, 1080), (1504, 832)),
        ((2940, 1912), (1408, 896)),
        ((128, 96), (320, 224)),
        ((48, 48), (256, 256)),
        ((1, 200), (32, 3648)),
    ],
)
def test_pictures_are_scaled_to_the_bounds(size: tuple[int, int], fitted: tuple[int, int]) -> None:
    assert fitted_size(*size, PictureBounds()) == fitted


@given(sides, sides, st.sampled_from([64, 1280, 16_384]))
def test_size_is_that_of_the_models_own_preprocessing(width: int, height: int, tokens: int) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    bounds = PictureBounds(max_pixels=max(65_536, tokens * 1024))
    if max(width, height) <= MAX_RATIO * min(width, height):
        expected = smart_resize(
            height,
            width,
            factor=bounds.unit,
            min_pixels=bounds.min_pixels,
            max_pixels=bounds.max_pixels,
        )
        assert fitted_size(width, height, bounds) == expected[::-1]
