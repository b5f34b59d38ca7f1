"""The body of a new batch, request by request: what is in memory at once is one of them.

The requests are found by brackets and strings alone, then each is read as strictly as any body;
what is left around them is read the same way. Made to run in a thread beside an event loop: the
longest step is one string. It knows neither HTTP nor where the bytes lie.
"""

import re
from collections.abc import Generator, Iterator
from mmap import mmap

from pydantic import ValidationError

from pensieve.api.batches import MAX_REQUESTS, BatchEntry, CreateBatchRequest
from pensieve.api.errors import first_error
from pensieve.api.json_body import decode
from pensieve.errors import InvalidRequestError, RequestTooLargeError

Buffer = bytes | mmap

# A request may have what a message may have, and the words around that.
MAX_ENTRY_BYTES = 33 * 2**20
# Of what is not a request: fields that nobody knows.
MAX_FRAME_BYTES = 2**20

# Possessive, so that nothing is tried twice; a quote that nothing closes comes last.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\],"]', re.DOTALL)
_QUOTE, _COMMA, _LIST = b'",['
_OPENING = b"{["
_BLANKS = b" \t\r\n"
_FIELD = "requests"
# Written with escapes only, quotes counted.
_LONGEST_FIELD = 6 * len(_FIELD) + 2

# Its first byte, and where it stands.
Token = tuple[int, int, int]


def read_batch(body: Buffer) -> Iterator[BatchEntry]:
    """The requests in `body`. What is wrong inside their `params` is not looked for.

    Raises `InvalidRequestError` and `RequestTooLargeError`, also after some of them.
    """
    frame = _Frame(body)
    custom_ids: set[str] = set()
    for index, text in enumerate(_elements_of_all(body, frame)):
        if index == MAX_REQUESTS:
            raise _wrong(f"List should have at most {MAX_REQUESTS} items after validation")
        entry = _entry(index, text)
        if entry.custom_id in custom_ids:
            raise _wrong(f"each custom_id must be unique, '{entry.custom_id}' is not")
        custom_ids.add(entry.custom_id)
        yield entry
    frame.check(is_empty=not custom_ids)


class _Frame:
    """A body without its requests."""

    def __init__(self, body: Buffer) -> None:
        self._body = body
        self._kept = bytearray()

    def keep(self, start: int, end: int) -> None:
        if end - start + len(self._kept) > MAX_FRAME_BYTES:
            raise _wrong("more than a megabyte stands beside them")
        self._kept += self._body[start:end]

    def check(self, *, is_empty: bool) -> None:
        """It must be JSON; where there were no requests it is refused for that."""
        fields = decode(bytes(self._kept))
        if not is_empty:
            return
        try:
            CreateBatchRequest.model_validate(fields)
        except ValidationError as error:
            raise InvalidRequestError(first_error(error)) from None


def _wrong(what: str) -> InvalidRequestError:
    return InvalidRequestError(f"{_FIELD}: {what}")


def _entry(index: int, text: bytes) -> BatchEntry:
    try:
        fields = decode(text)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{error.message} (in {_FIELD}.{index})") from None
    try:
        return BatchEntry.model_validate(fields)
    except ValidationError as error:
        separator = "." if isinstance(fields, dict) else ": "
        raise InvalidRequestError(f"{_FIELD}.{index}{separator}{first_error(error)}") from None


def _elements_of_all(body: Buffer, frame: _Frame) -> Iterator[bytes]:
    """The elements of the field `requests`; a field that comes twice is refused with the frame."""
    tokens = _tokens(body)
    kept_from = 0
    for begin in _lists(body, tokens):
        frame.keep(kept_from, begin)
        kept_from = yield from _elements(body, tokens, begin)
    frame.keep(kept_from, len(body))


def _tokens(body: Buffer) -> Iterator[Token]:
    for found in _TOKEN.finditer(body):
        start, end = found.span()
        kind = body[start]
        if kind == _QUOTE and end == start + 1:
            raise InvalidRequestError(
                f"The request body is not valid JSON: a string that begins at byte {start} does not end"
            )
        yield kind, start, end


def _lists(body: Buffer, tokens: Iterator[Token]) -> Iterator[int]:
    """Where the list of requests begins; whoever asks has read that list from `tokens` before asking on."""
    depth, key = 0, (0, 0)
    for kind, start, end in tokens:
        if kind == _QUOTE:
            key = (start, end)
        elif kind in _OPENING:
            if depth == 1 and kind == _LIST and _is_requests(body, key, start):
                yield end
            else:
                depth += 1
        elif kind != _COMMA:
            depth -= 1


def _is_requests(body: Buffer, key: tuple[int, int], list_from: int) -> bool:
    start, end = key
    is_key = end - start <= _LONGEST_FIELD and body[end:list_from].strip(_BLANKS) == b":"
    return is_key and decode(body[start:end]) == _FIELD


def _elements(body: Buffer, tokens: Iterator[Token], begin: int) -> Generator[bytes, None, int]:
    """The elements of the list that begins there; returns where its bracket closes."""
    depth, is_first = 0, True
    for kind, start, end in tokens:
        if kind in _OPENING:
            depth += 1
        elif kind == _COMMA:
            if depth == 0:
                yield _bounded(body, begin, start)
                begin, is_first = end, False
        elif kind != _QUOTE:
            if depth == 0:
                last = _bounded(body, begin, start)
                if not is_first or last.strip(_BLANKS):
                    yield last
                return start
            depth -= 1
    raise InvalidRequestError(
        "The request body is not valid JSON: the list of requests does not end"
    )


def _bounded(body: Buffer, start: int, end: int) -> bytes:
    if end - start > MAX_ENTRY_BYTES:
        raise RequestTooLargeError("Request exceeds the maximum size")
    return body[start:end]
