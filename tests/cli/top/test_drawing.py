"""What `pensieve top` draws of recorded bodies, at several sizes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from pensieve.cli.client.activity import activity_of, history_of
from pensieve.cli.top.drawing import Outage, TopScreen, TopState
from pensieve.cli.top.plots import Part, sparkline, stacked_bar
from pensieve.cli.ui.progress import in_short_time, share_bar
from pensieve.cli.ui.rich_console import plain_text
from tests.cli.top.recorded import (
    ANSWER,
    HEALTH,
    NOW,
    PROMPT,
    QUEUED,
    REPLICAS,
    activity,
    finished,
    history,
    open_request,
)

SIZES = [(80, 24), (120, 40), (60, 20), (200, 60), (40, 12), (20, 8), (1, 1)]
BUSY = (ANSWER, PROMPT, QUEUED)


def state_of(*requests: dict[str, Any], **fields: Any) -> TopState:
    return TopState(activity_of(activity(*requests)), history_of(history(**fields)))


def drawn(state: TopState, columns: int = 80, lines: int = 24, **options: Any) -> list[str]:
    screen = TopScreen(state, lines, footer="q quits", **options)
    return plain_text(screen, columns, "utf-8").split("\n")


def row_of(rows: list[str], beginning: str) -> str:
    return next(row for row in rows if row.startswith(beginning))


@pytest.mark.parametrize(("columns", "lines"), SIZES)
def test_screen_is_never_wider_than_the_terminal(columns: int, lines: int) -> None:
    rows = drawn(state_of(*BUSY), columns, lines)
    assert max(map(cell_len, rows)) <= columns


@pytest.mark.parametrize(("columns", "lines"), [*SIZES[:4], (60, 14)])
@pytest.mark.parametrize("requests", [(), BUSY, (PROMPT,) * 50])
def test_screen_fills_the_terminal_and_ends_with_the_footer(
    columns: int, lines: int, requests: tuple[dict[str, Any], ...]
) -> None:
    rows = drawn(state_of(*requests), columns, lines)
    assert (len(rows), rows[-1]) == (lines, "q quits")


def test_prompt_is_drawn_with_share_time_left_and_speed() -> None:
    row = row_of(drawn(state_of(PROMPT)), "claude-code ")
    assert row.split() == [
        *("claude-code", "3f2a9c1e", "prompt", "━━━─────", "38", "%"),
        *("19", "s", "4,012", "130", "12", "s"),
    ]


def test_answer_is_drawn_with_its_tokens_and_speed() -> None:
    row = row_of(drawn(state_of(ANSWER)), "codex ")
    assert row.split() == [
        *("codex", "-", "answer", "128", "of", "1,024", "-", "60,100", "42.1", "84", "s"),
    ]


def test_requests_beyond_the_room_are_counted() -> None:
    rows = drawn(state_of(*BUSY, *[QUEUED] * 20))
    assert "Open requests: 2 running, 21 waiting, 3 preempted so far" in rows
    shown = sum("pensieve-chat" in row for row in rows)
    assert f"and {21 - shown} more" in rows


def test_memory_bar_shows_the_parts_of_the_limit() -> None:
    rows = drawn(state_of(), 120, 40)
    bar = row_of(rows, "memory").split()[1]
    assert [bar.count(glyph) for glyph in "█▓▒·"] == [25, 3, 2, 10]
    assert "18.2 GB of 24.0 GB, process 16.9 GB" in row_of(rows, "memory")
    assert "weights 15.1 GB" in "\n".join(rows)


def test_last_requests_show_status_cache_and_where_a_prompt_differs() -> None:
    rows = drawn(state_of(), 120, 40)
    by_age = {row[:10].strip(): row.split()[3:] for row in rows if " ago " in row}
    assert by_age["12 s ago"][:5] == ["claude-code", "3f2a9c1e", "200", "4,012", "97"]
    assert by_age["75 s ago"][2] == "gone"
    assert by_age["7 min ago"][2:7] == ["200", "4,012", "30", "%", "1,204"]
    assert by_age["2 h ago"][2:5] == ["529", "-", "-"]


def test_findings_are_shown_with_their_fix() -> None:
    rows = drawn(state_of())
    assert rows[-3:-1] == [
        "Warning: disk: 2.1 GB are left; prefixes are not written below 5 GB.",
        "  pensieve cache clear; pensieve models",
    ]


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        (20, []),
        (24, ["Error: memory: Full.", "and 3 more: pensieve doctor"]),
        (30, [*["Error: memory: Full."] * 2, "and 2 more: pensieve doctor"]),
    ],
)
def test_findings_beyond_the_room_are_counted(lines: int, shown: list[str]) -> None:
    finding = {"severity": "error", "title": "memory", "explanation": "Full.", "fix": ""}
    rows = drawn(state_of(findings=[finding] * 4), lines=lines)
    assert [row for row in rows if "Full" in row or "more" in row] == shown


def test_outage_replaces_open_requests_and_keeps_the_history() -> None:
    outage = Outage("No pensieve server answers at http://x.", "Start it:\n  pensieve start", 100.0)
    state = TopState(state_of(*BUSY).activity, state_of().history, outage)
    rows = drawn(state, now=173.0)
    assert rows[:2] == [
        "server       no answer for 1 min 13 s",
        "             No pensieve server answers at http://x.",
    ]
    assert "Open requests" in rows
    assert not any(row.startswith(("codex", "claude-code", "pensieve-chat")) for row in rows)
    assert any("12 s ago" in row for row in rows)
    assert rows[-1] == "Start it: pensieve start. q quits"


def test_server_that_loads_is_shown_without_figures() -> None:
    health = HEALTH | {"status": "loading", "detail": "3 of 18 GB", "engine": None}
    state = TopState(activity_of(activity(health=health)))
    rows = drawn(state)
    assert rows[0].startswith("server       loading (3 of 18 GB), qwen3-coder-30b")
    assert not any(row.startswith("memory") for row in rows)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"at": None, "health": None, "requests": None},
        {
            "at": "x",
            "health": {"engine": {"memory_limit_bytes": "much"}},
            "requests": [{}, 1, None],
        },
        {"requests": [{"phase": "prompt", "prompt_tokens": 0, "processed_tokens": 5}]},
        {"requests": [{"phase": "answer", "remaining_s": float("nan"), "age_s": 10**400}]},
        {"at": 1e300, "speed": [[1e300, 1e308], [0, 1e308]], "first_token": [[1, 1]]},
    ],
)
def test_missing_and_unexpected_fields_are_drawn_as_unknown(body: dict[str, Any]) -> None:
    state = TopState(activity_of(body), history_of(body))
    assert drawn(state)[-1] == "q quits"


@pytest.mark.parametrize("columns", [80, 120])
def test_hostile_texts_cannot_drive_the_terminal(columns: int) -> None:
    hostile = "\x1b[2J\x1b]0;owned\x07\n\u202e[red]日本語🙂"
    health = HEALTH | {"model": hostile, "detail": hostile}
    request = PROMPT | {"client": hostile, "session": hostile, "priority": hostile}
    body = activity(request, open_request(hostile), health=health)
    past = history(
        recent=[finished(1, client=hostile, session=hostile)],
        findings=[{"severity": "warning", "title": hostile, "fix": hostile}],
    )
    rows = drawn(TopState(activity_of(body), history_of(past)), columns)
    assert not set("\x1b\x07\x9b\u202e\r") & set("".join(rows))
    assert len(rows) == 24
    assert max(map(cell_len, rows)) <= columns
    assert "\\x1b[2J" in rows[0]


def test_ascii_terminal_gets_plain_characters() -> None:
    screen = TopScreen(state_of(*BUSY), 24, footer="q quits")
    assert plain_text(screen, 80, "ascii").isascii()


# plots


def test_sparkline_scales_means_and_leaves_intervals_without_points_blank() -> None:
    points = [(0.0, 10.0), (1.0, 30.0), (25.0, 40.0), (39.0, 0.0), (99.0, 1000.0)]
    assert sparkline(points, 0.0, 40.0, 4) == "▄ █▁"


@given(st.lists(st.tuples(st.floats(-10, 3700), st.floats(0, 1e6))), st.integers(1, 80))
def test_sparkline_has_one_character_a_column(
    points: list[tuple[float, float]], columns: int
) -> None:
    assert len(sparkline(points, 0.0, 3600.0, columns)) == columns


def test_first_part_of_a_stacked_bar_is_seen_however_small() -> None:
    parts = [Part("a", 1, "a", ""), Part("b", 1, "b", ""), Part("c", 60, "c", "")]
    assert stacked_bar(parts, 100, 10).plain == "accccc····"
    assert stacked_bar(parts[:2], 100, 10).plain == "a·········"
    assert stacked_bar([Part("a", 0, "a", "")], 100, 4).plain == "····"


@given(st.lists(st.floats(0, 1e12), max_size=3), st.floats(0, 1e12), st.integers(1, 80))
def test_stacked_bar_never_exceeds_its_columns(
    amounts: list[float], whole: float, columns: int
) -> None:
    parts = [Part("x", amount, "█", "") for amount in amounts]
    assert len(stacked_bar(parts, whole, columns)) == columns


@pytest.mark.parametrize(
    ("share", "bar"),
    [(0, "────"), (0.01, "━───"), (0.5, "━━──"), (0.99, "━━━─"), (1, "━━━━"), (7, "━━━━")],
)
def test_share_bar_is_full_only_for_the_whole(share: float, bar: str) -> None:
    assert share_bar(share, 4) == bar


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (99.4, "99 s"),
        (99.6, "2 min"),
        (5969, "99 min"),
        (7200, "2 h"),
        (172_799, "48 h"),
        (200_000, "2 d"),
    ],
)
def test_short_times_have_one_unit(seconds: float, text: str) -> None:
    assert in_short_time(seconds) == text


def test_now_is_the_servers_clock() -> None:
    late = TopState(activity_of(activity() | {"at": NOW + 60}), state_of().history)
    assert any(row.startswith("  72 s ago") for row in drawn(late))


def state_with(replicas: list[dict[str, Any]]) -> TopState:
    body = activity(*BUSY, health={**HEALTH, "replicas": replicas})
    return TopState(activity_of(body), history_of(history()))


def test_each_of_several_engines_has_a_line() -> None:
    rows = drawn(state_with(REPLICAS), 120)
    at = rows.index("engines      worker-1 ready, 2 running, 1 waiting, 40.2 tokens/s")
    lost = "The connection to studio.local was lost; loading again."
    assert rows[at + 1] == f"             studio.local loading ({lost}), 1 restart"
    assert not any(row.startswith("engines") for row in drawn(state_of(*BUSY), 120))


@pytest.mark.parametrize(("columns", "lines"), [*SIZES[:4], (60, 14)])
def test_many_engines_leave_room_for_the_rest(columns: int, lines: int) -> None:
    many = [{**REPLICAS[0], "name": f"worker-{number}"} for number in range(16)]
    rows = drawn(state_with(many), columns, lines)
    assert (len(rows), rows[-1]) == (lines, "q quits")
    shown = sum("worker-" in row for row in rows)
    assert 0 < shown <= lines // 5
    assert f"and {16 - shown} more" in "\n".join(rows)
