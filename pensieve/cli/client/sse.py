"""Parses server-sent events (WHATWG HTML 9.2.6), as far as the Messages API uses them."""

from collections.abc import Iterable, Iterator


def lines(chunks: Iterable[bytes]) -> Iterator[str]:
    r"""Yield lines that end in \n or \r\n only.

    httpx's `iter_lines` also splits at U+2028 and similar, which JSON may contain unescaped.
    """
    buffer = b""
    for chunk in chunks:
        *whole, buffer = (buffer + chunk).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r").decode("utf-8", "replace")


def event_data(stream: Iterable[str]) -> Iterator[str]:
    """Yield the `data` of each event. An event without its final blank line is dropped."""
    data: list[str] = []
    for line in stream:
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            yield "\n".join(data)
            data = []
