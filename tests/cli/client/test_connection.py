"""Errors of the connection to a server, for people."""

import socket
from collections.abc import Generator
from contextlib import contextmanager
from threading import Thread

import pytest

from pensieve.cli.client.connection import Server, http_client
from pensieve.errors import ServerUnavailableError


@contextmanager
def accepting(reply: bytes | None) -> Generator[Server]:
    """Accept one connection; send `reply` and close it, or do nothing for None."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                if reply is None:
                    connection.recv(4096)  # until the client gives up
                else:
                    connection.sendall(reply)

        thread = Thread(target=serve)
        thread.start()
        yield Server(f"http://127.0.0.1:{listener.getsockname()[1]}", "key")
        thread.join()


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\ncut"])
def test_a_connection_that_the_server_closes_is_described(reply: bytes) -> None:
    with (
        accepting(reply) as server,
        pytest.raises(ServerUnavailableError, match="closed the connection before") as failure,
        http_client(server, 5.0, headers={}) as client,
    ):
        client.get("/")
    assert "Error" not in failure.value.message
    assert "pensieve status" in (failure.value.hint or "")


def test_a_server_that_does_not_answer_is_described() -> None:
    with (
        accepting(None) as server,
        pytest.raises(ServerUnavailableError, match="has not answered in time"),
        http_client(server, 0.05, headers={}) as client,
    ):
        client.get("/")
