"""Parse the body of a new batch request by request, so that only one is in memory at a time.

A scan for brackets and strings finds the requests; each is then parsed as strictly as any body, and
so is the remainder of the body. Runs in a thread: the longest step without giving way to the event
loop is the scan of one string. Knows neither HTTP nor where the bytes are stored.
"""

import json
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from mmap import mmap

from pydantic import ValidationError

from pensieve.api.batches import MAX_REQUESTS, BatchEntry, CreateBatchRequest
from pensieve.api.errors import first_error
from pensieve.api.json_body import decode
from pensieve.errors import InvalidRequestError, RequestTooLargeError

Buffer = bytes | mmap

# The limit of a message, and 1 MiB for `custom_id` and the keys.
MAX_ENTRY_BYTES = 33 * 2**20
# Fields other than `requests`, which are ignored.
MAX_REMAINDER_BYTES = 2**20

# Possessive quantifiers: no backtracking. The last alternative matches an unterminated quote.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\],"]', re.DOTALL)
_QUOTE, _COMMA, _LIST = b'",['
_OPENING = b"{["
_BLANKS = b" \t\r\n"
_FIELD = "requests"
# The name with every character escaped, and two quotes.
_MAX_FIELD_BYTES = 6 * len(_FIELD) + 2

# Start and end.
Span = tuple[int, int]
# First byte, start and end.
Token = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class LocatedEntry:
    """A request, and where its text lies in the body."""

    custom_id: str
    start: int
    size: int


def read_batch(body: Buffer) -> Iterator[LocatedEntry]:
    """Yield the requests in `body`, without validating their `params`.

    Raises `InvalidRequestError` and `RequestTooLargeError`, also after some requests.
    """
    remainder = _Remainder(body)
    custom_ids: set[str] = set()
    for index, (start, end) in enumerate(_all_elements(body, remainder)):
        if index == MAX_REQUESTS:
            raise _error(f"List should have at most {MAX_REQUESTS} items after validation")
        custom_id = _entry(index, body[start:end]).custom_id
        if custom_id in custom_ids:
            raise _error(f"each custom_id must be unique, '{custom_id}' is not")
        custom_ids.add(custom_id)
        yield LocatedEntry(custom_id, start, end - start)
    remainder.check(is_empty=not custom_ids)


def params_of(text: bytes) -> bytes:
    """Return the `params` in the text of a request, as JSON.

    Raises `InvalidRequestError`, if the text was altered after `read_batch`.
    """
    return json.dumps(_entry(0, text).params, separators=(",", ":")).encode()


class _Remainder:
    def __init__(self, body: Buffer) -> None:
        self._body = body
        self._bytes = bytearray()

    def add(self, start: int, end: int) -> None:
        if end - start + len(self._bytes) > MAX_REMAINDER_BYTES:
            raise _error("the other fields exceed one megabyte")
        self._bytes += self._body[start:end]

    def check(self, *, is_empty: bool) -> None:
        """Raise `InvalidRequestError` unless it is valid JSON and there were requests."""
        fields = decode(bytes(self._bytes))
        if not is_empty:
            return
        try:
            CreateBatchRequest.model_validate(fields)
        except ValidationError as error:
            raise InvalidRequestError(first_error(error)) from None


def _error(problem: str) -> InvalidRequestError:
    return InvalidRequestError(f"{_FIELD}: {problem}")


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


def _all_elements(body: Buffer, remainder: _Remainder) -> Iterator[Span]:
    """Yield the elements of `requests` and add everything else to the remainder.

    A field that occurs twice also does so in the remainder, whose check refuses it.
    """
    tokens = _tokens(body)
    remainder_start = 0
    for list_start in _find_lists(body, tokens):
        remainder.add(remainder_start, list_start)
        remainder_start = yield from _elements(body, tokens, list_start)
    remainder.add(remainder_start, len(body))


def _tokens(body: Buffer) -> Iterator[Token]:
    for match in _TOKEN.finditer(body):
        start, end = match.span()
        kind = body[start]
        if kind == _QUOTE and end == start + 1:
            raise InvalidRequestError(
                f"The request body is not valid JSON: a string that begins at byte {start}"
                " does not end"
            )
        yield kind, start, end


def _find_lists(body: Buffer, tokens: Iterator[Token]) -> Iterator[int]:
    """Yield the start of each list of requests.

    The caller consumes the list from `tokens` before it resumes this generator.
    """
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


def _is_requests(body: Buffer, key: tuple[int, int], list_start: int) -> bool:
    start, end = key
    is_key = end - start <= _MAX_FIELD_BYTES and body[end:list_start].strip(_BLANKS) == b":"
    return is_key and decode(body[start:end]) == _FIELD


def _elements(
    body: Buffer, tokens: Iterator[Token], element_start: int
) -> Generator[Span, None, int]:
    """Yield the elements of a list; return the index of its closing bracket."""
    depth, is_first = 0, True
    for kind, start, end in tokens:
        if kind in _OPENING:
            depth += 1
        elif kind == _COMMA:
            if depth == 0:
                yield _bounded(element_start, start)
                element_start, is_first = end, False
        elif kind != _QUOTE:
            if depth == 0:
                last = _bounded(element_start, start)
                if not is_first or body[element_start:start].strip(_BLANKS):
                    yield last
                return start
            depth -= 1
    raise InvalidRequestError(
        "The request body is not valid JSON: the list of requests does not end"
    )


def _bounded(start: int, end: int) -> Span:
    if end - start > MAX_ENTRY_BYTES:
        raise RequestTooLargeError("Request exceeds the maximum size")
    return start, end
