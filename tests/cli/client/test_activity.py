"""Asking a server for its activity: the key, errors, and an older server."""

import os

import pytest

from pensieve.cli.client.activity import activity_of
from pensieve.cli.client.activity_reader import ACTIVITY, HISTORY, read_activity
from pensieve.cli.client.connection import Server
from pensieve.errors import ForeignServerError, NoServerError, ServerUnavailableError
from tests.cli.fake_server import FakeServer, serving
from tests.cli.program import OWN_KEY
from tests.cli.top.recorded import PROMPT, activity, history


def offer(server: FakeServer) -> None:
    server.bodies = {ACTIVITY: lambda: activity(PROMPT), HISTORY: history}


def test_both_bodies_are_read_over_one_connection_after_the_proof() -> None:
    with serving() as server:
        offer(server)
        first, second = read_activity(Server(server.url, OWN_KEY), ACTIVITY, HISTORY)
        keys = [headers.get("x-api-key") for headers in server.seen]
        connections = {headers["client"] for headers in server.seen}
    assert (first, second) == (activity(PROMPT), history())
    assert keys == [None, OWN_KEY, OWN_KEY]
    assert len(connections) == 1


@pytest.mark.parametrize("pid", [None, os.getpid() + 1], ids=["none", "another"])
def test_key_is_not_sent_to_another_program(pid: int | None) -> None:
    with serving() as server:
        offer(server)
        server.prover = None
        with pytest.raises(ForeignServerError):
            read_activity(Server(server.url, OWN_KEY, pid), ACTIVITY)
        assert [headers.get("x-api-key") for headers in server.seen] == [None]


def test_recorded_server_needs_no_proof() -> None:
    with serving() as server:
        offer(server)
        server.prover = None
        (body,) = read_activity(Server(server.url, OWN_KEY, os.getpid()), ACTIVITY)
    assert [each.id for each in activity_of(body).requests] == ["req_1"]


def test_older_server_is_named_with_the_restart_command() -> None:
    with serving() as server, pytest.raises(ServerUnavailableError) as refusal:
        read_activity(Server(server.url, OWN_KEY), ACTIVITY)
    assert refusal.value.message == ("The server, version 0.1.0, does not report its activity.")
    assert "pensieve restart" in (refusal.value.hint or "")


def test_missing_server_is_reported_as_for_other_commands() -> None:
    with serving() as server:
        url = server.url
    with pytest.raises(NoServerError):
        read_activity(Server(url, OWN_KEY), ACTIVITY)


def test_body_without_json_is_reported() -> None:
    with serving() as server:
        server.healths = lambda: {"x": "y" * 9_000_000}  # more than is read
        with pytest.raises(ServerUnavailableError, match="what answers there is not pensieve"):
            read_activity(Server(server.url, OWN_KEY), ACTIVITY)
