"""The one door from text to tokens: what a tokenizer does to a text is bounded, and its faults are refusals.

The tokenizers library runs what the model's folder says. Its panics are BaseExceptions that Python
code does not expect, and some of its normalizers write much more than they read. Blocks, and lets
other threads run meanwhile. How long it may take is the caller's business (`trial_compile` is one).
"""

import json
from collections.abc import Generator
from contextlib import contextmanager
from functools import cached_property

from tokenizers import Encoding, Tokenizer

from pensieve.errors import InvalidRequestError
from pensieve.models.tokenizer.deadline import within
from pensieve.models.tokenizer.growth_limits import Growth, growth_of

# Up to this a text may grow: no published tokenizer makes more of one that people write.
MAX_GROWTH = 8
# For short texts: a prefix counts in each piece.
SLACK_BYTES = 65_536
PIECE_LETTERS = 1000
# All of the trial takes 0.02 s with the slowest published tokenizer (2026-11-30, two-core Linux).
TRIAL_S = 10.0
_RUN_LETTERS = 4096
# After a run: what ends it, and what an expression may look for before it begins to match.
_TAIL = "!" + "".join(map(chr, range(32, 127)))
_RUNS = ("a", "A", "0", " ", "\n", "-", "é", "中", "aA0 -\n", "don't ")


class EncodingError(InvalidRequestError):
    """The model's tokenizer does not take this text."""


class Encoder:
    """Encodes by one tokenizer, without the special tokens of its post-processor."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def ids(self, text: str) -> list[int]:
        """Raises `EncodingError`.

        A batch of one: `Tokenizer.encode` keeps other threads from running, a batch does not.
        """
        with _faults_translated():
            self._require_growth(text)
            return self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids

    def encoding(self, text: str) -> Encoding:
        """The same with each token's place in the text, which takes twice as long."""
        with _faults_translated():
            self._require_growth(text)
            return self._tokenizer.encode_batch([text], add_special_tokens=False)[0]

    @cached_property
    def growth(self) -> Growth:
        """As the library has read the parts, whatever another reader would make of the file."""
        parts = {
            name: json.loads(part.__getstate__())
            for name in ("normalizer", "pre_tokenizer")
            if (part := getattr(self._tokenizer, name)) is not None
        }
        return growth_of(parts)

    def _require_growth(self, text: str) -> None:
        """Normalize `text` piece by piece, where that could make too much of it."""
        if self.growth.normalizer <= MAX_GROWTH:
            return
        most = MAX_GROWTH * len(text.encode()) + SLACK_BYTES
        written = 0
        for start in range(0, len(text), PIECE_LETTERS):
            piece = text[start : start + PIECE_LETTERS]
            written += len(self._tokenizer.normalizer.normalize_str(piece).encode())
            if written > most:
                raise EncodingError(
                    f"messages: the model's tokenizer makes this text more than {MAX_GROWTH} times"
                    " longer"
                )


def try_out(encoder: Encoder, limit_s: float = TRIAL_S) -> str | None:
    """Return what is wrong with an encoder that does not take runs of ordinary letters in time.

    Its growth is computed before. One that takes too long goes on in a thread of its own, which ends with the process.
    """
    if not encoder.growth.is_bounded:
        return "can make a text so much longer that no memory holds it"

    def encode() -> None:
        for letters in _RUNS:
            encoder.ids(letters * (_RUN_LETTERS // len(letters)) + _TAIL)

    try:
        within(limit_s, encode)
    except TimeoutError:
        return f"takes more than {limit_s:g} s for {_RUN_LETTERS} letters"
    except EncodingError as error:
        return f"does not take ordinary text ({str(error.__cause__ or error)[:200]})"
    return None


@contextmanager
def _faults_translated() -> Generator[None]:
    """The library raises plain Exception, and panics, which are BaseException, of no public class."""
    try:
        yield
    except (EncodingError, KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        raise EncodingError(
            f"messages: the model's tokenizer does not take this text: {str(error)[:200]}"
        ) from error
