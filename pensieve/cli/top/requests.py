"""The tables of open and of finished requests. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from pensieve.cli.client.activity import FinishedRequest, OpenRequest
from pensieve.cli.top.columns import UNKNOWN, Column, table
from pensieve.cli.ui.progress import in_short_time, share_bar

PHASE_STYLES = {"queued": "magenta", "prompt": "cyan", "answer": "green"}
# " 38 %" after a bar.
SHARE_CHARS = 5
MAX_BAR_CHARS = 40


def open_table(requests: Sequence[OpenRequest], width: int) -> Table:
    columns: tuple[Column[OpenRequest], ...] = (
        Column("client", 13, 2, _client, is_left=True),
        Column("session", 8, 6, _session, is_left=True),
        Column("kind", 5, 8, lambda each: each.priority, is_left=True),
        Column("phase", 7, 0, _phase, is_left=True),
        Column("progress", 12, 1, _progress, is_left=True, grows=True),
        Column("left", 6, 3, _remaining),
        Column("prompt", 7, 5, lambda each: _count(each.prompt_tokens)),
        Column("cached", 6, 7, _cached),
        Column("pics", 4, 9, _pictures),
        Column("tok/s", 6, 4, _speed),
        Column("age", 6, 5, lambda each: _time(each.age_s)),
    )
    return table(columns, requests, width)


def finished_table(requests: Sequence[FinishedRequest], now: float, width: int) -> Table:
    """now: Unix seconds by the server's clock."""
    columns: tuple[Column[FinishedRequest], ...] = (
        Column("ended", 10, 1, lambda each: f"{in_short_time(now - each.ended_at)} ago"),
        Column("client", 13, 3, _client, is_left=True, grows=True),
        Column("session", 8, 9, _session, is_left=True),
        Column("status", 6, 0, _status),
        Column("prompt", 7, 4, lambda each: _count(each.prompt_tokens)),
        Column("cached", 6, 5, _cached),
        Column("pics", 4, 12, _pictures),
        Column("differs", 7, 11, lambda each: _count(each.diverged_at)),
        Column("answer", 6, 6, lambda each: _count(each.output_tokens)),
        Column("queued", 6, 10, lambda each: _time(each.queue_s)),
        Column("first", 6, 2, lambda each: _time(each.first_token_s)),
        Column("total", 6, 7, lambda each: _time(each.total_s)),
        Column("tok/s", 6, 8, lambda each: _rate(each.tokens_per_second)),
    )
    return table(columns, requests, width)


@dataclass(frozen=True, slots=True)
class _PromptBar:
    """A bar as wide as its column, and the share in per cent."""

    share: float

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = min(MAX_BAR_CHARS, options.max_width - SHARE_CHARS)
        yield Text(f"{share_bar(self.share, columns)}{self.share:4.0%}".replace("%", " %"), "cyan")


def _client(request: OpenRequest | FinishedRequest) -> str:
    return request.client or UNKNOWN


def _session(request: OpenRequest | FinishedRequest) -> str:
    return request.session or UNKNOWN


def _cached(request: OpenRequest | FinishedRequest) -> str:
    """Return the share of the prompt that was in the prefix cache."""
    if not request.prompt_tokens or request.cached_tokens is None:
        return UNKNOWN
    return f"{request.cached_tokens / request.prompt_tokens:.0%}".replace("%", " %")


def _pictures(request: OpenRequest | FinishedRequest) -> str:
    return str(request.pictures) if request.pictures else ""


def _phase(request: OpenRequest) -> Text:
    return Text(request.phase, PHASE_STYLES.get(request.phase, ""))


def _progress(request: OpenRequest) -> "_PromptBar | Text":
    match request.phase:
        case "answer" if request.max_tokens:
            return Text(f"{request.output_tokens:,} of {request.max_tokens:,}")
        case "answer":
            return Text(f"{request.output_tokens:,} tokens")
        case "prompt" if request.prompt_tokens and request.processed_tokens is not None:
            return _PromptBar(request.processed_tokens / request.prompt_tokens)
        case _:
            return Text()


def _remaining(request: OpenRequest) -> str:
    """Return about how long the prompt still takes."""
    return _time(request.remaining_s if request.phase == "prompt" else None)


def _speed(request: OpenRequest) -> str:
    """Return the speed of the phase."""
    is_answer = request.phase == "answer"
    return _rate(request.tokens_per_second if is_answer else request.prompt_tokens_per_second)


def _status(request: FinishedRequest) -> Text:
    if request.is_client_gone:
        return Text("gone", "magenta")
    if request.status is None:
        return Text(UNKNOWN)
    return Text(str(request.status), "red" if request.status >= 400 else "")


def _count(number: int | None) -> str:
    return UNKNOWN if number is None else f"{number:,}"


def _time(seconds: float | None) -> str:
    return UNKNOWN if seconds is None else in_short_time(seconds)


def _rate(tokens_per_second: float | None) -> str:
    if tokens_per_second is None:
        return UNKNOWN
    return f"{tokens_per_second:,.0f}" if tokens_per_second >= 100 else f"{tokens_per_second:.1f}"
