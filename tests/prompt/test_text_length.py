"""Texts far too long for a model: told about right, without tokenizing all of them."""

import pytest

from pensieve.prompt.text_length import CHARS_PER_TOKEN, PIECE_CHARS, length_beyond

CONTEXT = 1000


class Counter:
    """So many letters are a token; remembers how many it saw."""

    def __init__(self, letters_per_token: int) -> None:
        self._letters_per_token = letters_per_token
        self.letters = 0

    def __call__(self, text: str) -> int:
        self.letters += len(text)
        return len(text) // self._letters_per_token


def test_a_text_that_may_fit_is_not_looked_at() -> None:
    counter = Counter(4)
    assert length_beyond("x" * (CONTEXT * CHARS_PER_TOKEN), CONTEXT, counter) is None
    assert not counter.letters


@pytest.mark.parametrize("letters_per_token", [1, 4, 60])
def test_a_longer_one_is_told_by_a_part_of_it(letters_per_token: int) -> None:
    counter = Counter(letters_per_token)
    tokens = length_beyond("x" * 30_000_000, CONTEXT, counter)
    assert tokens == pytest.approx(30_000_000 / letters_per_token, rel=0.01)
    assert counter.letters == PIECE_CHARS


def test_a_long_text_of_few_tokens_is_not_too_long() -> None:
    counter = Counter(5000)
    assert length_beyond("x" * 4_000_000, CONTEXT, counter) is None
    assert counter.letters == 4_000_000


def test_a_text_of_exactly_the_most_tokens_is_not_too_long() -> None:
    text = "x" * (
        CONTEXT * CHARS_PER_TOKEN + 1
    )  # one piece, of which 8 tokens may be due to the cut
    assert length_beyond(text, CONTEXT, lambda _: CONTEXT + 8) is None
    assert length_beyond(text, CONTEXT, lambda _: CONTEXT + 9) == CONTEXT + 1


def test_a_text_is_looked_at_all_over() -> None:
    """Its beginning is not like the rest."""
    text = "a" * 3_000_000 + "b" * 3_000_000
    tokens = length_beyond(text, 500_000, lambda piece: piece.count("b"))
    assert tokens == pytest.approx(3_000_000, rel=0.5)
