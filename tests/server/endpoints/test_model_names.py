"""A client's `model` is a name to look up, never a path, a repository or an address."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from urllib.parse import quote

import pytest

from tests.server.serving import CALL, KEY, app_of, in_memory
from tests.support.fakes import ScriptedEngine, says

pytestmark = pytest.mark.anyio

STARTS = [
    "..", "../..", "/etc", "/", "~", "file:///etc", "./", "%2e%2e", "..%2f..",
    "\\\\host\\share", "C:\\", "//host/x",
    "http://127.0.0.1:1/x", "https://example.com/a/b", "hf://owner/name",
    "owner/name", "owner/name@main", "\0", "a\0b", "-x",
]  # fmt: skip
ENDS = ["", "/passwd", "/config.json", "/../../etc/passwd", "%00.json"]
NAMES = [start + end for start in STARTS for end in ENDS]

_watched: list[list[str]] = []


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if _watched and event in {
        "open",
        "os.listdir",
        "os.scandir",
        "socket.connect",
        "subprocess.Popen",
    }:
        _watched[-1].append(f"{event} {arguments[0]!r}")


# An audit hook stays for the life of the process; it records only during `watching`.
sys.addaudithook(_hook)


@contextmanager
def watching() -> Generator[list[str]]:
    """Yield what is opened, listed, connected to or started during the block."""
    _watched.append([])
    try:
        yield _watched[-1]
    finally:
        _watched.pop()


def test_watch_records_file_and_socket_access() -> None:
    with watching() as seen, open(__file__, "rb"):  # noqa: PTH123
        pass
    assert seen == [f"open {__file__!r}"]


async def test_model_name_never_opens_a_file_or_connection() -> None:
    assert len(NAMES) == 100
    headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
    async with in_memory(app_of(ScriptedEngine([says("ok")])), headers) as client:
        await client.post("/v1/messages", json=CALL)  # triggers late imports
        await client.get("/v1/models/none")
        with watching() as seen:
            for name in NAMES:
                answered = await client.post("/v1/messages", json=CALL | {"model": name})
                assert answered.status_code == 200, name
                assert answered.json()["model"] == name
                response = await client.get(f"/v1/models/{quote(name, safe='')}")
                if not name.strip("/"):  # the address of the list, with redundant slashes
                    assert response.json()["data"], name
                    continue
                assert response.status_code == 404, name
                assert response.json()["error"]["type"] == "not_found_error"
        assert seen == []
