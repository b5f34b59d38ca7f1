"""The log's format, escaping, rotation, following, and limit for repeated lines."""

import io
import json
import logging
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve import logs
from pensieve.logs import MAX_KINDS, MAX_LINES, PERIOD_S, LogRateLimit
from pensieve.worker_threads import DeadlineThreads, run_in_thread


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Yield the log's stream and restore logging afterwards."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level, logging.getLogger("pensieve").level)
    output = io.StringIO()
    root.handlers[:] = []
    yield output
    logging.captureWarnings(capture=False)
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    logging.getLogger("pensieve").setLevel(before[2])


def test_a_line_has_time_level_and_message(stream: io.StringIO) -> None:
    logs.set_up(is_debug=False, stream=stream)
    logging.getLogger("pensieve.server").info("the model is loaded (%s s)", 3)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ INFO the model is loaded \(3 s\)\n", stream.getvalue()
    )


def test_libraries_are_logged_from_warning(stream: io.StringIO) -> None:
    logs.set_up(is_debug=True, stream=stream)
    logging.getLogger("httpcore").info("chatter")
    logging.getLogger("httpcore").warning("trouble")
    logging.getLogger("pensieve").debug("detail")
    assert [line.split(" ", 1)[1] for line in stream.getvalue().splitlines()] == [
        "WARNING trouble",
        "DEBUG detail",
    ]


def test_repeated_set_up_does_not_duplicate_lines(stream: io.StringIO) -> None:
    logs.set_up(is_debug=True, stream=stream)
    logs.set_up(is_debug=False, stream=stream)
    logging.getLogger("pensieve").debug("detail")
    logging.getLogger("pensieve").info("once")
    assert stream.getvalue().count("\n") == 1


def test_an_error_with_traceback_is_one_line(stream: io.StringIO) -> None:
    logs.set_up(is_debug=False, stream=stream)
    try:
        int("bad\nvalue")
    except ValueError:
        logging.getLogger("pensieve").exception("it broke")
    assert stream.getvalue().count("\n") == 1
    assert r"\nValueError: invalid literal" in stream.getvalue()


@given(st.text())
def test_control_characters_cannot_break_a_line(text: str) -> None:
    line = logs.OneLine().format(logging.makeLogRecord({"msg": "%s", "args": (text,)}))
    assert len(line.splitlines()) == 1
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in line)


# the file


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "server.log"


def write_lines(log: Path, max_bytes: int, *lines: str) -> None:
    with log.open("a") as output:
        handler = logs.SizeCappedHandler(output, log, max_bytes)
        for line in lines:
            handler.emit(logging.makeLogRecord({"msg": line}))


def test_a_full_log_is_copied_and_truncated(log: Path) -> None:
    with log.open("a") as other_process:
        write_lines(log, 1000, *[f"line {number:04}" for number in range(110)])
        other_process.write("a crash\n")
    earlier = log.with_name("server.log.1")
    assert log.stat().st_size <= 1000 + len("a crash\n")
    assert 1000 < earlier.stat().st_size < 1100
    assert stat.S_IMODE(earlier.stat().st_mode) == 0o600
    assert log.read_text().splitlines()[-2:] == ["line 0109", "a crash"]
    remaining = [*earlier.read_text().splitlines(), *log.read_text().splitlines()]
    assert remaining[-11:-1] == [f"line {number:04}" for number in range(100, 110)]


def test_rotation_does_not_follow_a_planted_link(log: Path) -> None:
    precious = log.with_name("precious")
    precious.write_text("kept")
    log.with_name("server.log.1").symlink_to(precious)
    write_lines(log, 10, "a line that is longer than that", "and one more")
    assert precious.read_text() == "kept"
    assert "one more" in log.read_text()


def test_only_regular_files_are_size_capped(log: Path, stream: io.StringIO) -> None:
    with log.open("a") as output:
        logs.set_up(is_debug=False, stream=output)
        assert isinstance(logging.getLogger().handlers[0], logs.SizeCappedHandler)
    with Path("/dev/null").open("w") as output:
        logs.set_up(is_debug=False, stream=output)
        assert not isinstance(logging.getLogger().handlers[0], logs.SizeCappedHandler)
    logs.set_up(is_debug=False, stream=stream)
    assert not isinstance(logging.getLogger().handlers[0], logs.SizeCappedHandler)


def test_a_log_opened_by_a_shell_has_no_hole_after_rotation(log: Path) -> None:
    with log.open("w") as output:
        handler = logs.SizeCappedHandler(output, log, max_bytes=1000)
        for number in range(110):
            handler.emit(logging.makeLogRecord({"msg": f"line {number:04}"}))
    assert log.read_text().startswith("line 0")
    assert log.stat().st_size < 200


def test_last_lines_include_the_rotated_log(log: Path) -> None:
    assert list(logs.last_lines(log, 5)) == []
    log.with_name("server.log.1").write_bytes(b"one\ntwo \xff\n")
    log.write_text("three\nfour")
    assert list(logs.last_lines(log, 3)) == ["two \ufffd", "three", "four"]
    assert list(logs.last_lines(log, 0)) == []
    assert len(list(logs.last_lines(log, 9))) == 4


def test_follow_survives_partial_lines_rotation_and_replacement(log: Path) -> None:
    log.write_text("before\n")
    writes = iter([("a", "a"), ("a", "b\nc\n"), ("w", "d\n"), ("w", ""), ("w", "e\nf\n")])

    def write() -> None:
        mode, text = next(writes)
        with log.open(mode) as file:
            file.write(text)

    followed = logs.follow(log, pause=write)
    assert [next(followed) for _ in range(5)] == ["ab", "c", "d", "e", "f"]


def test_follow_yields_lines_written_just_before_rotation(log: Path) -> None:
    log.with_name("server.log.1").write_text("of long ago, and longer than what there is now\n")
    log.write_text("before\n")

    def turn() -> Iterator[None]:
        write_text(log, "half a ")
        yield
        write_text(log, "line\njust before\nand ")
        logs.rotate(log)
        write_text(log, "just after\n")
        yield
        log.unlink()
        yield
        write_text(log, "anew\n")
        yield

    turning = turn()
    followed = logs.follow(log, pause=lambda: next(turning))
    yielded = [next(followed) for _ in range(4)]
    assert yielded == ["half a line", "just before", "and just after", "anew"]


def write_text(log: Path, text: str) -> None:
    with log.open("a") as file:
        file.write(text)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def record(
    message: str, *values: object, level: int = logging.ERROR, error: Exception | None = None
) -> logging.LogRecord:
    cause = (type(error), error, None) if error else None
    return logging.LogRecord("asyncio", level, "", 0, message, values, cause)


def test_repeated_warnings_are_limited_and_counted_in_the_next_period() -> None:
    clock = Clock()
    damping = LogRateLimit(clock)
    flood = [record("accept failed: %s", number, error=OSError()) for number in range(26_000)]
    assert sum(map(damping.filter, flood)) == MAX_LINES
    clock.now += PERIOD_S
    later = record("accept failed: %s", "again", error=OSError())
    assert damping.filter(later)
    held_back = 26_000 - MAX_LINES
    assert later.getMessage() == f"accept failed: again ({held_back} more like it before)"
    clock.now += PERIOD_S
    last = record("accept failed: %s", "once", error=OSError())
    assert damping.filter(last)
    assert last.getMessage() == "accept failed: once"


def test_other_warnings_pass_during_a_flood() -> None:
    damping = LogRateLimit(Clock())
    assert sum(damping.filter(record("a")) for _ in range(100)) == MAX_LINES
    assert damping.filter(record("b"))
    assert damping.filter(record("a", error=OSError()))
    assert damping.filter(record("a", level=logging.WARNING))


def test_info_records_are_never_suppressed() -> None:
    damping = LogRateLimit(Clock())
    assert all(damping.filter(record("request", level=logging.INFO)) for _ in range(1000))


def test_the_number_of_tracked_kinds_is_limited() -> None:
    damping = LogRateLimit(Clock())
    assert all(damping.filter(record(f"kind {number}")) for number in range(3 * MAX_KINDS))


def test_json_line_has_time_level_message_and_the_request_of_its_block(
    stream: io.StringIO,
) -> None:
    logs.set_up(is_debug=False, is_json=True, stream=stream)
    log = logging.getLogger("pensieve.server")
    log.info("the model is loaded (%s s)", 3)
    with logs.naming("req_1"):
        log.warning("line\nbreak \u2028 \x1b[31m \ud800")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert first == {"level": "INFO", "message": "the model is loaded (3 s)"}
    assert second["request_id"] == "req_1"
    assert second["message"] == "line\nbreak \u2028 \x1b[31m \ud800"
    assert stream.getvalue().isascii()


def test_json_line_has_the_fields_of_its_message_and_its_traceback(stream: io.StringIO) -> None:
    @dataclass
    class Line:
        def __str__(self) -> str:
            return "the text"

        @property
        def fields(self) -> dict[str, object]:
            return {"status": 200, "total_s": 0.25}

    logs.set_up(is_debug=False, is_json=True, stream=stream)
    logging.getLogger("pensieve").info(Line())
    try:
        int("why")
    except ValueError:
        logging.getLogger("pensieve").exception("it failed")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["message"], first["status"], first["total_s"]) == ("the text", 200, 0.25)
    assert second["exception"].endswith("ValueError: invalid literal for int() with base 10: 'why'")


def test_text_line_names_the_request_of_its_block_also_in_its_threads(
    stream: io.StringIO,
) -> None:
    log = logging.getLogger("pensieve")

    async def work() -> None:
        with logs.naming("req_1"):
            await run_in_thread(partial(log.info, "in a thread"))
            await DeadlineThreads(1, 10).run(partial(log.info, "with a deadline"))
        log.info("after it")

    logs.set_up(is_debug=False, stream=stream)
    anyio.run(work)
    assert [line.split(" ", 1)[1] for line in stream.getvalue().splitlines()] == [
        "INFO req_1 in a thread",
        "INFO req_1 with a deadline",
        "INFO after it",
    ]


@pytest.mark.parametrize("is_json", [False, True])
def test_tail_has_our_own_lines_above_debug_in_both_formats(
    tmp_path: Path, stream: io.StringIO, *, is_json: bool
) -> None:
    log = tmp_path / "server.log"
    with log.open("w+") as file:
        logs.set_up(is_debug=True, is_json=is_json, stream=file)
        for number in range(5000):
            logging.getLogger("pensieve").info("line %d of some length", number)
        logging.getLogger("pensieve").debug("canary")
        file.write("canary of another library\n")
        logging.getLogger("pensieve").error("the end")
    tail = logs.own_tail(log, 3)
    assert ["4998" in tail[0], "4999" in tail[1], "the end" in tail[2]] == [True] * 3
    assert logs.own_tail(tmp_path / "none", 3) == []
