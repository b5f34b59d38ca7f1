"""The key and the prompt are sent only to a server that has proven to be the user's own."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from pensieve.cli.client.connection import Server
from pensieve.cli.client.server_identity import identify
from pensieve.daemon import server_lock
from pensieve.daemon.server_record import Address, own_record, publish
from pensieve.errors import ForeignServerError
from pensieve.paths import under_home
from pensieve.peer_proof import Prover
from pensieve.settings.resolve import DEFAULT_API_KEY
from tests.cli.fake_server import FakeServer, message, serving
from tests.cli.program import OWN_KEY, pensieve


def secrets_seen(server: FakeServer) -> list[str]:
    """Return keys in any header of any request, and questions."""
    keys = [headers["x-api-key"] for headers in server.seen if "x-api-key" in headers]
    return [*keys, *(str(body) for _, body in server.calls)]


def test_key_is_sent_to_a_server_that_proves_it() -> None:
    with serving() as server:
        identify(Server(server.url, OWN_KEY))
        assert secrets_seen(server) == [OWN_KEY]


@pytest.mark.parametrize("prover", [None, Prover("another key"), Prover("")])
def test_program_without_the_key_receives_nothing(prover: Prover | None) -> None:
    with serving(message("caught")) as server:
        server.prover = prover
        with pytest.raises(ForeignServerError, match="neither your key") as refusal:
            identify(Server(server.url, OWN_KEY))
        assert secrets_seen(server) == []
    assert refusal.value.exit_code == 69
    assert "another key" in (refusal.value.hint or "")


def test_proof_relayed_from_another_port_is_rejected() -> None:
    with serving() as real, serving() as relay:
        relay.server_port, port = real.server_port, relay.server_port
        with pytest.raises(ForeignServerError):
            identify(Server(f"http://127.0.0.1:{port}", OWN_KEY))
        assert secrets_seen(relay) == []


def test_default_key_proves_nothing() -> None:
    with serving() as server:
        server.prover = Prover(DEFAULT_API_KEY)
        with pytest.raises(ForeignServerError) as refusal:
            identify(Server(server.url, DEFAULT_API_KEY))
        assert secrets_seen(server) == []
    assert "pensieve start" in (refusal.value.hint or "")


def test_recorded_server_is_recognized_by_its_pid() -> None:
    with serving() as server:
        server.prover = None
        identify(Server(server.url, DEFAULT_API_KEY, os.getpid()))
        assert secrets_seen(server) == [DEFAULT_API_KEY]
        with pytest.raises(ForeignServerError):
            identify(Server(server.url, DEFAULT_API_KEY, os.getpid() + 1))


@pytest.mark.parametrize("report", [{}, {"pid": None}, {"proof": ["x"]}, {"x": "y" * 100_000}])
def test_any_other_health_response_is_foreign(report: dict[str, object]) -> None:
    with serving() as server:
        server.prover = None
        server.healths = lambda: report
        with pytest.raises(ForeignServerError):
            identify(Server(server.url, OWN_KEY))


def test_chat_reports_a_foreign_listener(tmp_path: Path) -> None:
    with serving(message("caught")) as server:
        server.prover = None
        where = {"PENSIEVE_PORT": str(server.server_port)}
        done = pensieve("chat", "a secret", home=tmp_path, **where)
        assert secrets_seen(server) == []
    assert (done.returncode, done.stdout) == (69, b"")
    assert b"has not proved to be your pensieve server" in done.stderr


def test_downloading_server_does_not_listen_yet(tmp_path: Path) -> None:
    """Another program may answer at its address meanwhile, and claim any pid."""
    paths = under_home(tmp_path / "pensieve")
    with serving(message("caught")) as server, server_lock.acquire(paths):
        address = Address("127.0.0.1", server.server_port, "tiny", "cpu")
        with publish(paths, replace(own_record(address), phase="fetching")):
            done = pensieve("chat", "a secret", home=tmp_path)
        assert server.seen == []
    assert done.returncode == 69
