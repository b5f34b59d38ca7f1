"""Server-sent events read from a response's bytes (WHATWG HTML 9.2.6), as far as the Messages API writes them."""

from collections.abc import Iterable, Iterator
from typing import Any, cast

from pensieve.errors import ServerUnavailableError
from pensieve.untrusted_json import read_json


def lines(chunks: Iterable[bytes]) -> Iterator[str]:
    r"""Lines that end in \n or \r\n and in nothing else.

    httpx's own `iter_lines` also ends them at U+2028 and its like, which JSON may hold unescaped.
    """
    held = b""
    for chunk in chunks:
        *whole, held = (held + chunk).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r").decode("utf-8", "replace")


def events(stream: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The decoded `data` of each event. One that never ends in a blank line is dropped."""
    held: list[str] = []
    for line in stream:
        if line.startswith("data:"):
            held.append(line[5:].removeprefix(" "))
        elif not line and held:
            yield _decoded("\n".join(held))
            held = []


def _decoded(text: str) -> dict[str, Any]:
    try:
        event = read_json(text)
    except ValueError as error:
        raise ServerUnavailableError("The server's answer cannot be read: not JSON.") from error
    return cast("dict[str, Any]", event) if isinstance(event, dict) else {}
