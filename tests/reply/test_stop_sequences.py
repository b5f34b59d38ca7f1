"""Stop sequences, however the text is cut."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pensieve.reply.stop_sequences import StopScanner

letters = st.text("ab", max_size=12)
sequences = st.lists(st.text("ab", min_size=1, max_size=4), max_size=3).map(tuple)


def scan(pieces: list[str], sequences: tuple[str, ...]) -> tuple[str, str | None]:
    scanner = StopScanner(sequences)
    said = ""
    for piece in pieces:
        scanned = scanner.feed(piece)
        said += scanned.text
        if scanned.matched:
            return said, scanned.matched
    return said + scanner.flush(), None


def plainly(text: str, sequences: tuple[str, ...]) -> tuple[str, str | None]:
    """The same, letter by letter from the definition: the first end wins, then the longest."""
    for end in range(len(text) + 1):
        ending = [sequence for sequence in sequences if text[:end].endswith(sequence)]
        if ending:
            longest = max(ending, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(st.lists(letters), sequences)
@example(["aab", "b"], ("abb", "bb"))
@example(["aba", "bb"], ("ababb", "b"))
def test_any_cut_gives_what_the_whole_text_gives(
    pieces: list[str], sequences: tuple[str, ...]
) -> None:
    assert scan(pieces, sequences) == plainly("".join(pieces), sequences)


def test_a_sequence_is_found_across_pieces_and_not_said() -> None:
    assert scan(["one ST", "O", "P two"], ("STOP",)) == ("one ", "STOP")


def test_a_beginning_that_comes_to_nothing_is_said() -> None:
    scanner = StopScanner(("STOP",))
    assert scanner.feed("say ST").text == "say "
    assert scanner.feed("ART").text == "START"


@pytest.mark.parametrize("text", ["", "x", "xy"])
def test_what_cannot_begin_a_sequence_is_never_held_back(text: str) -> None:
    assert StopScanner(("STOP",)).feed(text).text == text


def test_what_was_flushed_is_not_said_again() -> None:
    scanner = StopScanner(("STOP",))
    scanner.feed("ST")
    assert scanner.flush() == "ST"
    assert scanner.flush() == ""
