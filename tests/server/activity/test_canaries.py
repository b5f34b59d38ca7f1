"""Nothing that a client sends or that a model answers is in /activity, its history, /metrics, the
log or the archive for a bug report.
"""

import json
import logging
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import httpx
import pytest

from pensieve import logs
from pensieve.dialects.families import hermes
from pensieve.doctor import bundle
from pensieve.paths import under_home
from pensieve.server.app import AppParts
from tests.doctor.contexts import healthy_context
from tests.server.serving import SETTINGS, app_of, in_memory
from tests.support.canaries import BODIES, CANARY, HEADERS, SCRIPTS, body_of
from tests.support.fakes import ScriptedEngine

pytestmark = pytest.mark.anyio
REQUESTS = 1000
# What is logged of a client's names without repeating them.
LINES = (
    "/v1/messages: 200 in",
    "in a call of tool 1 of 1",
    "ignoring 1 tools that this server cannot run, of type unknown",
    "results without a call",
    "ignoring 1 items that are unknown here, from input.3 on",
    "input_schema of tool 1 failed to compile",
)


@pytest.fixture
def written(tmp_path: Path) -> Iterator[dict[str, Path]]:
    """Yield the files of the log, which is written in both formats."""
    files = {name: tmp_path / f"{name}.log" for name in ("text", "json")}
    root, ours = logging.getLogger(), logging.getLogger("pensieve")
    before = root.handlers[:], root.level, ours.level
    with files["text"].open("w+") as text, files["json"].open("w+") as as_json:
        root.handlers[:] = []
        logs.set_up(is_debug=False, is_json=True, stream=as_json)
        handler = logging.StreamHandler(text)
        handler.setFormatter(logs.OneLine())
        root.addHandler(handler)
        yield files
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level = before[0], before[1]
    ours.setLevel(before[2])


async def send_all(client: httpx.AsyncClient) -> None:
    paths = list(BODIES)
    for number in range(REQUESTS):
        path = paths[number % len(paths)]
        body = body_of(path, number)
        key = {"x-api-key": CANARY} if number % 11 == 0 else {}
        await client.post(f"{path}?{CANARY}={CANARY}", json=body, headers=HEADERS | key)
    params = {"custom_id": CANARY, "params": BODIES["/v1/messages"]}
    await client.post("/v1/messages/batches", json={"requests": [params]})
    upload = {"file": (CANARY, CANARY.encode(), "text/plain")}
    await client.post("/v1/files", files=upload, headers=HEADERS)
    await client.get(f"/v1/{CANARY}/models/{CANARY}", headers=HEADERS)
    await client.request("GET", "/v1/messages", content=CANARY, headers=HEADERS)


def archived(log: Path, folder: Path) -> str:
    """Return the log within an archive that is made of it."""
    context = healthy_context(folder)
    context.settings.paths.logs.mkdir(parents=True)
    context.settings.paths.server_log.write_bytes(log.read_bytes())
    file = folder / "report.tar.gz"
    bundle.write(file, context, [])
    with tarfile.open(file) as archive:
        members = [archive.extractfile(each) for each in archive.getmembers()]
        return "\n".join(member.read().decode() for member in members if member)


async def test_canary_in_each_field_of_each_wire_is_in_no_report_log_or_archive(
    written: dict[str, Path], tmp_path: Path
) -> None:
    settings = replace(SETTINGS, paths=under_home(tmp_path / "home"))
    engine = ScriptedEngine(SCRIPTS * REQUESTS)
    app = app_of(
        engine,
        parts=AppParts(log=written["json"]),
        settings=settings,
        context_tokens=100_000,
        dialect=hermes.DIALECT,
    )
    async with app.router.lifespan_context(app), in_memory(app) as client:
        await send_all(client)
        with anyio.fail_after(10):
            while '"batch"' not in (report := (await client.get("/activity/history")).text):
                await anyio.sleep(0)
        statuses = {request["status"] for request in json.loads(report)["recent"]}
        assert statuses >= {200, 400, 500}
        assert len(json.loads(report)["log"]) == 100
        for path in ("/activity", "/metrics"):
            report += (await client.get(path)).text
    assert 'wire="batch"' in report
    assert CANARY not in report
    archive = archived(written["json"], tmp_path)
    assert CANARY not in archive
    assert "/v1/chat/completions: 200 in" in archive
    for log in written.values():
        text = log.read_text()
        assert CANARY not in text
        for line in LINES:
            assert line in text
