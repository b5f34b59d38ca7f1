"""Open requests in `pensieve status`."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pensieve.cli.app import run
from pensieve.cli.client.activity_reader import ACTIVITY
from pensieve.daemon import server_lock
from pensieve.daemon.server_record import Address, own_record, publish
from pensieve.paths import under_home
from tests.cli.fake_server import FakeServer, health, serving
from tests.cli.top.recorded import ANSWER, PROMPT, activity


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """A server with a record, and two requests in work."""
    for name in [name for name in os.environ if name.startswith("PENSIEVE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PENSIEVE_HOME", str(tmp_path / "home"))
    paths = under_home(tmp_path / "home")
    with serving() as server:
        server.healths = lambda: health() | {"in_flight": 2}
        server.bodies = {ACTIVITY: lambda: activity(ANSWER, PROMPT)}
        record = own_record(Address("127.0.0.1", server.server_port, "tiny", "cpu"))
        with server_lock.acquire(paths), publish(paths, record):
            yield server


@pytest.mark.usefixtures("server")
def test_open_requests_are_listed_with_their_progress(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status"]) == 0
    rows = capsys.readouterr().out.splitlines()
    at = next(at for at, row in enumerate(rows) if row.startswith("requests"))
    assert rows[at - 1].split() == ["in", "flight", "2"]
    assert rows[at : at + 2] == [
        "requests   codex                 answer 128 tokens, 42.1 per second",
        "           claude-code 3f2a9c1e  prompt 38 % of 4,012 tokens, about 19 s left",
    ]


@pytest.mark.usefixtures("server")
def test_json_has_the_open_requests(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["requests"] == [ANSWER, PROMPT]


@pytest.mark.parametrize("variables", [{}, {"PENSIEVE_PORT": "no number"}])
def test_status_works_if_the_activity_cannot_be_read(
    variables: dict[str, str],
    server: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With an older server, and with settings that are wrong."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if not variables:
        server.bodies = {}
    assert run(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["requests"] is None


def test_idle_server_is_not_asked(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.healths = health
    assert run(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["requests"] == []
    assert [headers["path"] for headers in server.seen] == ["/health"]
