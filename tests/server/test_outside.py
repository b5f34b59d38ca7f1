"""Names from clients never cause access outside: model names, URLs."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.server.serving import CALL, app_of, in_memory
from tests.support.fakes import ScriptedEngine, says

pytestmark = pytest.mark.anyio
WATCHED = {
    *["open", "os.listdir", "os.scandir", "os.mkdir", "os.remove", "os.rename"],
    *["socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "subprocess.Popen"],
}


class Watch:
    """Records file, network and process events of this process while on.

    The only audit hook: hooks are permanent.
    """

    def __init__(self) -> None:
        self._seen: list[tuple[str, Any]] | None = None
        sys.addaudithook(self._note)

    def _note(self, event: str, given: tuple[Any, ...]) -> None:
        if self._seen is not None and event in WATCHED:
            self._seen.append((event, given))

    @contextmanager
    def on(self) -> Iterator[list[tuple[str, Any]]]:
        self._seen = seen = []
        try:
            yield seen
        finally:
            self._seen = None


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


UPS = ["../", "..\\", "..%2f", "%2e%2e/", "....//", "..;/", "/", "//", "~/", "./"]
TARGETS = [
    *["etc/passwd", "root/.ssh/id_rsa", "proc/self/environ", "config.json", "model.safetensors"],
    *["dev/random", ".pensieve/config.toml", "evil/model", "tmp/x\0.json", "C:\\boot.ini"],
]
NAMES = [
    *[up * 4 + target for up in UPS for target in TARGETS],
    *["file:///etc/passwd", "https://evil.com/model", "hf://evil/model", "evil/model@main"],
    *["mlx-community/Phi-3-mini-4k-instruct-4bit", "someone/bytes/../../x", "${HOME}", "`id`"],
]


async def test_model_name_is_never_a_path(watch: Watch) -> None:
    engine = ScriptedEngine([says("ok")])
    async with in_memory(app_of(engine)) as client:
        await client.post("/v1/messages", json=CALL)  # triggers late imports
        await client.get("/v1/models/x")
        with watch.on() as seen:
            for name in NAMES:
                answered = await client.post("/v1/messages", json=CALL | {"model": name})
                assert answered.json()["model"] == name
                response = await client.get(f"/v1/models/{quote(name, safe='')}")
                assert response.status_code == 404, name
    assert len(NAMES) >= 100
    assert not seen


URLS = [
    *[
        "http://evil.com/x.png",
        "https://169.254.169.254/latest/meta-data",
        "http://127.0.0.1:7777/",
    ],
    *["file:///etc/passwd", "ftp://evil.com/x", "data:image/png;base64,AAAA", "//evil.com/x", "x"],
]


@pytest.mark.parametrize("kind", ["image", "document"])
async def test_url_is_not_fetched(watch: Watch, kind: str) -> None:
    engine = ScriptedEngine([says("no")])
    async with in_memory(app_of(engine)) as client:
        await client.post("/v1/messages", json=CALL)
        with watch.on() as seen:
            for url in URLS:
                block = {"type": kind, "source": {"type": "url", "url": url}}
                call = CALL | {"messages": [{"role": "user", "content": [block]}]}
                refused = await client.post("/v1/messages", json=call)
                assert refused.status_code == 400
                assert f"Could not process {kind}" in refused.json()["error"]["message"]
    assert not seen


async def test_watch_records_file_access(watch: Watch) -> None:
    with watch.on() as seen, Path(__file__).open(encoding="utf-8"):
        pass
    assert [event for event, _ in seen] == ["open"]
