"""Encode text with a model's tokenizer, with bounded output and library faults as errors.

All encoding goes through here. The tokenizers library runs what the model's folder says: its panics
are BaseExceptions that Python code does not expect, and some normalizers write much more than they
read. Blocks, but releases the GIL. The caller limits the time (`find_fault` does).
"""

import json
from collections.abc import Generator
from contextlib import contextmanager
from functools import cached_property
from itertools import takewhile
from operator import itemgetter

from tokenizers import Encoding, Tokenizer

from pensieve.errors import InvalidRequestError
from pensieve.models.tokenizer.growth_limits import Growth, growth_of
from pensieve.worker_threads import within

# Allowed growth of a text's bytes; no published tokenizer exceeds it on ordinary text.
MAX_GROWTH = 8
# Extra allowance for short texts: a prefix counts in each piece.
SLACK_BYTES = 65_536
PIECE_CHARS = 1000
# The whole trial takes 0.02 s with the slowest published tokenizer (2026-11-30, two-core Linux).
TRIAL_TIMEOUT_S = 10.0
_RUN_CHARS = 4096
# Follows a run: ends it, and has characters that an expression may search before it matches.
_TAIL = "!" + "".join(map(chr, range(32, 127)))
_RUNS = ("a", "A", "0", " ", "\n", "-", "é", "中", "aA0 -\n", "don't ")


class EncodingError(InvalidRequestError):
    """The model's tokenizer does not accept this text."""


class Encoder:
    """Encodes with one tokenizer, without the special tokens of its post-processor, but for
    `text_start`.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def ids(self, text: str) -> list[int]:
        """Raises `EncodingError`.

        Encodes a batch of one, because `Tokenizer.encode` holds the GIL and a batch does not.
        """
        with _faults_translated():
            self._require_growth(text)
            return self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids

    def encoding(self, text: str) -> Encoding:
        """Return the encoding with each token's offsets in the text, which takes twice as long."""
        with _faults_translated():
            self._require_growth(text)
            return self._tokenizer.encode_batch([text], add_special_tokens=False)[0]

    @cached_property
    def text_start(self) -> tuple[int, ...]:
        with _faults_translated():
            encoding = self._tokenizer.encode("a")
        marked = zip(encoding.ids, encoding.special_tokens_mask, strict=True)
        return tuple(number for number, _ in takewhile(itemgetter(1), marked))

    @cached_property
    def growth(self) -> Growth:
        """The bounds of the parts as the library has parsed them."""
        parts = {
            name: json.loads(part.__getstate__())
            for name in ("normalizer", "pre_tokenizer")
            if (part := getattr(self._tokenizer, name)) is not None
        }
        return growth_of(parts)

    def _require_growth(self, text: str) -> None:
        """Normalize `text` in pieces if the normalizer could produce too much."""
        if self.growth.normalizer <= MAX_GROWTH:
            return
        max_bytes = MAX_GROWTH * len(text.encode()) + SLACK_BYTES
        written_bytes = 0
        for start in range(0, len(text), PIECE_CHARS):
            piece = text[start : start + PIECE_CHARS]
            written_bytes += len(self._tokenizer.normalizer.normalize_str(piece).encode())
            if written_bytes > max_bytes:
                raise EncodingError(
                    f"messages: the model's tokenizer makes this text more than {MAX_GROWTH} times"
                    " longer"
                )


def find_fault(encoder: Encoder, limit_s: float = TRIAL_TIMEOUT_S) -> str | None:
    """Return what is wrong with an encoder that does not encode runs of ordinary characters in
    time.

    Its growth is computed first. Encoding that takes too long continues in a daemon thread.
    """
    if not encoder.growth.is_bounded:
        return "can make a text so much longer that no memory holds it"

    def encode() -> None:
        for run in _RUNS:
            encoder.ids(run * (_RUN_CHARS // len(run)) + _TAIL)

    try:
        within(limit_s, encode)
    except TimeoutError:
        return f"takes more than {limit_s:g} s for {_RUN_CHARS} characters"
    except EncodingError as error:
        return f"does not accept ordinary text ({str(error.__cause__ or error)[:200]})"
    return None


@contextmanager
def _faults_translated() -> Generator[None]:
    """The library raises plain Exception, and panics as BaseException without a public class."""
    try:
        yield
    except (EncodingError, KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        raise EncodingError(
            f"messages: the model's tokenizer does not accept this text: {str(error)[:200]}"
        ) from error
