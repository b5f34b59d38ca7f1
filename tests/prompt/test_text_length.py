"""Estimate the length of texts far too long for a model, without tokenizing all of them."""

import pytest

from pensieve.prompt.render import CHARS_PER_TOKEN, PIECE_CHARS, length_beyond

CONTEXT = 1000


class Counter:
    """Counts a token per fixed number of characters, and the characters it has seen."""

    def __init__(self, chars_per_token: int) -> None:
        self._chars_per_token = chars_per_token
        self.chars = 0

    def __call__(self, text: str) -> int:
        self.chars += len(text)
        return len(text) // self._chars_per_token


def test_text_that_may_fit_is_not_counted() -> None:
    counter = Counter(4)
    assert length_beyond("x" * (CONTEXT * CHARS_PER_TOKEN), CONTEXT, counter) is None
    assert not counter.chars


@pytest.mark.parametrize("chars_per_token", [1, 4, 60])
def test_length_of_a_longer_text_is_estimated_from_a_part(chars_per_token: int) -> None:
    counter = Counter(chars_per_token)
    tokens = length_beyond("x" * 30_000_000, CONTEXT, counter)
    assert tokens == pytest.approx(30_000_000 / chars_per_token, rel=0.01)
    assert counter.chars == PIECE_CHARS


def test_long_text_of_few_tokens_is_not_too_long() -> None:
    counter = Counter(5000)
    assert length_beyond("x" * 4_000_000, CONTEXT, counter) is None
    assert counter.chars == 4_000_000


def test_text_of_exactly_max_tokens_is_not_too_long() -> None:
    text = "x" * (
        CONTEXT * CHARS_PER_TOKEN + 1
    )  # one piece, of which 8 tokens may be due to the cut
    assert length_beyond(text, CONTEXT, lambda _: CONTEXT + 8) is None
    assert length_beyond(text, CONTEXT, lambda _: CONTEXT + 9) == CONTEXT + 1


def test_pieces_are_sampled_from_the_whole_text() -> None:
    """The beginning of the text differs from the rest."""
    text = "a" * 3_000_000 + "b" * 3_000_000
    tokens = length_beyond(text, 500_000, lambda piece: piece.count("b"))
    assert tokens == pytest.approx(3_000_000, rel=0.5)
