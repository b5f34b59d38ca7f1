"""Stop sequences in text that is split in every way."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pensieve.reply.stop_sequences import StopScanner

fragments = st.text("ab", max_size=12)
sequences = st.lists(st.text("ab", min_size=1, max_size=4), max_size=3).map(tuple)


def scan(pieces: list[str], sequences: tuple[str, ...]) -> tuple[str, str | None]:
    scanner = StopScanner(sequences)
    text = ""
    for piece in pieces:
        scanned = scanner.feed(piece)
        text += scanned.text
        if scanned.matched:
            return text, scanned.matched
    return text + scanner.flush(), None


def expected_scan(text: str, sequences: tuple[str, ...]) -> tuple[str, str | None]:
    """Return the result by definition: the first end wins, then the longest sequence."""
    for end in range(len(text) + 1):
        ending = [sequence for sequence in sequences if text[:end].endswith(sequence)]
        if ending:
            longest = max(ending, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(st.lists(fragments), sequences)
@example(["aab", "b"], ("abb", "bb"))
@example(["aba", "bb"], ("ababb", "b"))
def test_every_split_gives_the_same_result_as_the_whole_text(
    pieces: list[str], sequences: tuple[str, ...]
) -> None:
    assert scan(pieces, sequences) == expected_scan("".join(pieces), sequences)


def test_a_sequence_across_pieces_is_found_and_removed() -> None:
    assert scan(["one ST", "O", "P two"], ("STOP",)) == ("one ", "STOP")


def test_a_partial_sequence_that_does_not_complete_is_emitted() -> None:
    scanner = StopScanner(("STOP",))
    assert scanner.feed("say ST").text == "say "
    assert scanner.feed("ART").text == "START"


@pytest.mark.parametrize("text", ["x", "xy"])
def test_text_that_cannot_begin_a_sequence_is_not_delayed(text: str) -> None:
    assert StopScanner(("STOP",)).feed(text).text == text


def test_flushed_text_is_not_emitted_twice() -> None:
    scanner = StopScanner(("STOP",))
    scanner.feed("ST")
    assert scanner.flush() == "ST"
    assert scanner.flush() == ""
