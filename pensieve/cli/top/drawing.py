"""Draws what `pensieve top` shows, at any size. Pure: the same values give the same drawing."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from pensieve.cli.client.activity import (
    NO_ACTIVITY,
    NO_HISTORY,
    Activity,
    EngineFigures,
    Finding,
    History,
    Point,
    Replica,
    ServerState,
)
from pensieve.cli.top.plots import Part, sparkline, stacked_bar
from pensieve.cli.top.requests import finished_table, open_table
from pensieve.cli.ui.progress import counted, in_bytes, in_time, share_bar

LABEL_CHARS = 13
# Below this width, labels are their first word.
MIN_COLUMNS_FOR_LABELS = 72
SHORT_LABEL_CHARS = 8
MAX_BAR_CHARS = 40
MIN_BAR_CHARS = 10
HOUR_S = 3600.0
# Without a terminal's height.
PLAIN_LINES = 40
# For the first of doctor's findings, and for the second.
MIN_LINES_FOR_FINDINGS = (22, 30)
# An empty line, a title, and the titles of the columns.
TABLE_HEAD_LINES = 3
STATUS_STYLES = {"ready": "green", "asleep": "cyan", "loading": "magenta", "failed": "red"}


# Why the server cannot be asked, since when, and what to do.
@dataclass(frozen=True, slots=True)
class Outage:
    message: str
    hint: str
    since: float  # of the monotonic clock


@dataclass(frozen=True, slots=True)
class TopState:
    activity: Activity = NO_ACTIVITY
    history: History = NO_HISTORY
    outage: Outage | None = None  # the figures are the last ones before it


@dataclass(frozen=True, slots=True)
class TopScreen:
    state: TopState
    lines: int = PLAIN_LINES
    now: float = 0.0  # of the monotonic clock, for the length of an outage
    footer: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Group(*_sections(self, options.max_width))


def _sections(screen: TopScreen, width: int) -> list[RenderableType]:
    state, lines = screen.state, screen.lines
    header = _header(screen, width)
    most = sum(lines >= limit for limit in MIN_LINES_FOR_FINDINGS)
    notes = [*_findings(state.history.findings, most), *_footer(screen)]
    left = lines - len(header) - len(notes)
    requests = _open_requests(state, width, left)
    left -= requests.lines
    plots = _plots(state, width) if left >= 3 else []
    left -= len(plots)
    recent = _recent(state, width, left)
    filler = [Text()] * (left - recent.lines if screen.footer else 0)
    return [*header, *requests.drawings, *plots, *recent.drawings, *filler, *notes]


@dataclass(frozen=True, slots=True)
class _Section:
    drawings: Sequence[RenderableType] = ()
    lines: int = 0


def _header(screen: TopScreen, width: int) -> list[Text]:
    state = screen.state.activity.state
    outage = screen.state.outage
    first = _outage(outage, screen.now) if outage else [_server(state)]
    labelled = [_labelled("" if at else "server", each, width) for at, each in enumerate(first)]
    lines = [*labelled, *_replicas(screen, width)]
    if engine := state.engine:
        lines += [_labelled("speed", _speed(engine), width), *_stores(engine, width)]
    return lines


def _server(state: ServerState) -> Text:
    text = Text(state.status or "unknown", STATUS_STYLES.get(state.status, ""))
    if state.detail:
        text.append(f" ({state.detail})")
    facts = [
        state.model,
        f"{state.context_tokens:,} tokens of context" if state.context_tokens else "",
        state.device,
        counted(state.restarts, "restart") if state.restarts else "",
        f"pensieve {state.version}" if state.version else "",
    ]
    return text.append("".join(f", {fact}" for fact in facts if fact))


def _replicas(screen: TopScreen, width: int) -> list[Text]:
    """Draw a line for each of several engines, in at most a fifth of the lines."""
    replicas = () if screen.state.outage else screen.state.activity.replicas
    most = screen.lines // 5
    shown = replicas if len(replicas) <= most else replicas[: max(0, most - 1)]
    lines = [
        _labelled("" if at else "engines", _replica(each), width) for at, each in enumerate(shown)
    ]
    if shown and (hidden := len(replicas) - len(shown)):
        lines.append(_labelled("", Text(f"and {hidden:,} more", "dim"), width))
    return lines


def _replica(replica: Replica) -> Text:
    facts = [
        f"{replica.in_flight - replica.queued:,} running" if replica.in_flight else "",
        f"{replica.queued:,} waiting" if replica.queued else "",
        f"{replica.tokens_per_second:,.1f} tokens/s" if replica.tokens_per_second else "",
        counted(replica.restarts, "restart") if replica.restarts else "",
    ]
    text = Text.assemble(f"{replica.name} ", (replica.state, STATUS_STYLES.get(replica.state, "")))
    if replica.detail:
        text.append(f" ({replica.detail})")
    return text.append("".join(f", {fact}" for fact in facts if fact))


def _outage(outage: Outage, now: float) -> list[Text]:
    """Two lines: the cause is at the end of its message, which one line may have no room for."""
    length = in_time(max(0.0, now - outage.since))
    return [Text(f"no answer for {length}", "bold magenta"), Text(outage.message)]


def _speed(engine: EngineFigures) -> Text:
    facts = [
        f"answers {engine.tokens_per_second:,.1f} tokens/s" if engine.tokens_per_second else "",
        f"prompts {engine.prompt_tokens_per_second:,.0f} tokens/s"
        if engine.prompt_tokens_per_second
        else "",
        f"{engine.tokens_per_step:.1f} tokens a step" if engine.tokens_per_step > 1.05 else "",
    ]
    return Text(", ".join(filter(None, facts)) or "no answer yet")


def _stores(engine: EngineFigures, width: int) -> list[Text]:
    """Return memory with its legend, and disk, with bars of one length."""
    parts = _memory_parts(engine)
    memory, disk = _memory_amounts(engine, parts), _disk_amounts(engine)
    columns = width - _label_chars(width) - max(len(memory), len(disk))
    columns = max(MIN_BAR_CHARS, min(MAX_BAR_CHARS, columns))
    legend = Text(" ").join(
        Text.assemble((part.glyph, part.style), f" {part.label} {in_bytes(part.amount)}")
        for part in parts
    )
    memory_bar = stacked_bar(parts, engine.memory_limit_bytes, columns)
    lines = [_labelled("memory", memory_bar.append(memory), width), _labelled("", legend, width)]
    cap = engine.prefix_disk_cap_bytes
    if not cap:
        return [*lines, _labelled("disk", Text("no prompt cache on disk"), width)]
    bar = share_bar(engine.prefix_disk_bytes / cap, columns)
    return [*lines, _labelled("disk", Text.assemble((bar, "cyan"), disk), width)]


def _memory_parts(engine: EngineFigures) -> Sequence[Part]:
    return (
        Part("weights", engine.weights_bytes, "█", "blue"),
        Part("running", engine.kv_used_bytes, "▓", "green"),
        Part("cached", engine.prefix_memory_bytes, "▒", "cyan"),
    )


def _memory_amounts(engine: EngineFigures, parts: Sequence[Part]) -> str:
    used = sum(part.amount for part in parts)
    process = f", process {in_bytes(engine.worker_bytes)}" if engine.worker_bytes else ""
    return f" {in_bytes(used)} of {in_bytes(engine.memory_limit_bytes)}{process}"


def _disk_amounts(engine: EngineFigures) -> str:
    paused = " (paused)" if engine.is_writing_paused else ""
    return (
        f" {in_bytes(engine.prefix_disk_bytes)} of {in_bytes(engine.prefix_disk_cap_bytes)},"
        f" {in_bytes(engine.written_today_bytes)} written today{paused}"
    )


def _open_requests(state: TopState, width: int, lines: int) -> _Section:
    """Draw the open requests, at most half of the lines and always one."""
    requests = () if state.outage else state.activity.requests
    title = _title("Open requests", _counts(state))
    if not requests:
        return _Section([Text(), title], 2)
    most = max(1, lines // 2 - TABLE_HEAD_LINES)
    shown = requests if len(requests) <= most else requests[: max(1, most - 1)]
    drawings: list[RenderableType] = [Text(), title, open_table(shown, width)]
    if hidden := len(requests) - len(shown):
        drawings.append(Text(f"and {hidden:,} more", "dim"))
    return _Section(drawings, 3 + len(shown) + bool(hidden))


def _counts(state: TopState) -> str:
    if state.outage:
        return ""
    phases = [request.phase for request in state.activity.requests]
    waiting = sum(phase in {"reading", "queued"} for phase in phases)
    counts = [(len(phases) - waiting, "running"), (waiting, "waiting")]
    engine = state.activity.state.engine
    counts += [(engine.preempted, "preempted so far")] if engine else []
    return ", ".join(f"{count:,} {kind}" for count, kind in counts if count) or "none"


def _plots(state: TopState, width: int) -> list[Text]:
    """Draw the last hour, one line below the other."""
    history, until = state.history, state.activity.at
    rows = [
        ("speed", history.speed, _latest(history.speed, "tokens/s")),
        ("first token", history.first_token, _latest(history.first_token, "s")),
    ]
    columns = width - _label_chars(width) - max(len(figures) for _, _, figures in rows)
    columns = max(MIN_BAR_CHARS, columns)
    lines = [Text()]
    for label, points, figures in rows:
        line = sparkline(points, until - HOUR_S, until, columns) if points else ""
        lines.append(_labelled(label, Text.assemble((line, "green"), figures), width))
    return lines


def _latest(points: Sequence[Point], unit: str) -> str:
    if not points:
        return "nothing in the last hour"
    values = [value for _, value in points]
    return f" {values[-1]:.1f} {unit}, highest {max(values):.1f}"


def _recent(state: TopState, width: int, lines: int) -> _Section:
    """Draw the finished requests, as many as there are lines for; nothing if none has room."""
    room = lines - TABLE_HEAD_LINES
    if room < 1:
        return _Section()
    recent = state.history.recent[:room]
    title = _title("Last requests", "" if recent else "none")
    if not recent:
        return _Section([Text(), title], 2)
    table = finished_table(recent, state.activity.at, width)
    return _Section([Text(), title, table], TABLE_HEAD_LINES + len(recent))


def _findings(findings: Sequence[Finding], most: int) -> list[Text]:
    """Return the first of doctor's findings, each with what fixes it below."""
    lines: list[Text] = []
    for each in findings[:most]:
        label, style = ("Error", "red") if each.severity == "error" else ("Warning", "magenta")
        text = ": ".join(filter(None, (each.title, each.explanation)))
        lines.append(_line((f"{label}: ", style), text))
        lines += [_line(f"  {each.fix}")] if each.fix else []
    if most and (hidden := len(findings) - most) > 0:
        lines.append(_line((f"and {hidden:,} more: pensieve doctor", "dim")))
    return lines


def _footer(screen: TopScreen) -> list[Text]:
    if not screen.footer:
        return []
    outage = screen.state.outage
    hint = f"{' '.join(outage.hint.split())}. " if outage and outage.hint else ""
    return [_line((f"{hint}{screen.footer}", "dim"))]


def _title(name: str, text: str) -> Text:
    return _line((name, "bold"), f": {text}" if text else "")


def _labelled(label: str, text: Text, width: int) -> Text:
    chars = _label_chars(width)
    label = label if chars == LABEL_CHARS else label.partition(" ")[0]
    return _line((f"{label:<{chars}}", "dim"), text)


def _label_chars(width: int) -> int:
    return LABEL_CHARS if width >= MIN_COLUMNS_FOR_LABELS else SHORT_LABEL_CHARS


def _line(*parts: str | tuple[str, str] | Text) -> Text:
    line = Text.assemble(*parts)
    line.no_wrap, line.overflow = True, "ellipsis"
    return line
