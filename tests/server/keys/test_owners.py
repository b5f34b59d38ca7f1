"""What a named key stores or does is its own: no other key lists it, reads it or changes it."""

import sqlite3
from pathlib import Path
from typing import Any

import anyio.lowlevel
import httpx
import pytest

from pensieve.credentials.named_keys import KeyLimits, add_key, revoke_key
from pensieve.server.activity.registry import Activity
from pensieve.server.app import AppParts
from pensieve.server.files.store import FileStore
from tests.server.keys.team import Team, team_of
from tests.server.serving import CALL

pytestmark = pytest.mark.anyio
NAMES = ("anna", "ben")
EVERYONE = ("anna", "ben", "")
BATCH = {"requests": [{"custom_id": "a", "params": CALL}]}
RESPOND = {"model": "any", "input": "hello"}


def others(owner: str) -> list[str]:
    return [name for name in EVERYONE if name != owner]


async def statuses(team: Team, name: str, calls: list[tuple[str, str]]) -> list[int]:
    return [(await team[name].request(method, path)).status_code for method, path in calls]


async def listed(team: Team, path: str) -> dict[str, list[str]]:
    return {
        name: [each["id"] for each in (await team[name].get(path)).json()["data"]]
        for name in EVERYONE
    }


@pytest.mark.parametrize("owner", EVERYONE)
async def test_file_is_its_owners_alone(tmp_path: Path, owner: str) -> None:
    async with team_of(tmp_path, *NAMES) as team:
        uploaded = await team[owner].post("/v1/files", files={"file": ("n.txt", b"secret")})
        file_id = uploaded.json()["id"]
        path = f"/v1/files/{file_id}"
        found = await listed(team, "/v1/files")
        assert found == {name: [file_id] if name == owner else [] for name in EVERYONE}
        call = CALL | {"messages": [_with_file(file_id)]}
        for name in others(owner):
            reads = [("GET", path), ("GET", f"{path}/content"), ("DELETE", path)]
            assert await statuses(team, name, reads) == [404] * 3
            assert (await team[name].get("/v1/files", params={"ids": file_id})).json()["data"] == []
            assert (await team[name].post("/v1/messages", json=call)).status_code == 404
        assert (await team[owner].post("/v1/messages", json=call)).status_code == 200
        assert (await team[owner].delete(path)).status_code == 200


def _with_file(file_id: str) -> dict[str, Any]:
    source = {"type": "file", "file_id": file_id}
    return {"role": "user", "content": [{"type": "document", "source": source}]}


@pytest.mark.parametrize("owner", EVERYONE)
async def test_batch_is_its_owners_alone_and_runs_as_theirs(tmp_path: Path, owner: str) -> None:
    async with team_of(tmp_path, *NAMES) as team:
        created = (await team[owner].post("/v1/messages/batches", json=BATCH)).json()
        path = f"/v1/messages/batches/{created['id']}"
        assert await listed(team, "/v1/messages/batches") == {
            name: [created["id"]] if name == owner else [] for name in EVERYONE
        }
        with anyio.fail_after(10):
            while (await team[owner].get(path)).json()["processing_status"] != "ended":
                await anyio.lowlevel.checkpoint()
        calls = [
            *[("GET", path), ("GET", f"{path}/results")],
            *[("POST", f"{path}/cancel"), ("DELETE", path)],
        ]
        for name in others(owner):
            assert await statuses(team, name, calls) == [404] * 4
        assert await statuses(team, owner, calls) == [200] * 4
        assert [each.client for each in team.engine.generations] == [owner]


@pytest.mark.parametrize("owner", EVERYONE)
async def test_response_is_its_owners_alone(tmp_path: Path, owner: str) -> None:
    async with team_of(tmp_path, *NAMES) as team:
        item = {"type": "message", "role": "user", "content": "secret", "id": "msg_chosen"}
        first = (await team[owner].post("/v1/responses", json=RESPOND | {"input": [item]})).json()
        path = f"/v1/responses/{first['id']}"
        continued = RESPOND | {"previous_response_id": first["id"]}
        referring = RESPOND | {"input": [{"type": "item_reference", "id": "msg_chosen"}]}
        calls = [("GET", path), ("GET", f"{path}/input_items"), ("DELETE", path)]
        for name in others(owner):
            assert await statuses(team, name, calls) == [404] * 3
            for call in (continued, referring):
                for at in ("/v1/responses", "/v1/responses/input_tokens"):
                    assert (await team[name].post(at, json=call)).status_code in {400, 404}
        for call in (continued, referring):
            assert (await team[owner].post("/v1/responses", json=call)).status_code == 200
        assert (await team[owner].delete(path)).status_code == 200


async def test_thread_is_its_owners_alone(tmp_path: Path) -> None:
    async with team_of(tmp_path, *NAMES) as team:
        create = CALL | {"thread": {"type": "create"}}
        beta = {"anthropic-beta": "message-threads-2026-06-24"}
        first = await team["anna"].post("/v1/messages", json=create, headers=beta)
        message = {"type": "continue", "previous_message_id": first.json()["id"]}
        for name, status in (("ben", 404), ("", 404), ("anna", 200)):
            response = await team[name].post(
                "/v1/messages", json=CALL | {"thread": message}, headers=beta
            )
            assert response.status_code == status, response.text


async def test_next_key_of_a_name_has_what_the_one_before_stored(tmp_path: Path) -> None:
    async with team_of(tmp_path, "anna") as team:
        await team["anna"].post("/v1/files", files={"file": ("n.txt", b"secret")})
        revoke_key(team.paths.keys_file, "anna")
        key = add_key(team.paths.keys_file, "anna", KeyLimits(), 2.0)
        response = await team["anna"].get("/v1/files", headers={"x-api-key": key})
        assert len(response.json()["data"]) == 1


async def test_what_an_earlier_version_stored_is_the_servers_own(tmp_path: Path) -> None:
    async with team_of(tmp_path, "anna") as team:
        await team[""].post("/v1/files", files={"file": ("n.txt", b"old")})
        folder = team.paths.files
    with sqlite3.connect(folder / "files.db") as database:
        database.execute("DROP TABLE owners")
    database.close()
    store = FileStore(folder)
    assert ([len(store.list_files(name)) for name in ("", "anna")]) == [1, 0]
    store.close()


async def _activity(client: httpx.AsyncClient) -> tuple[list[Any], dict[str, Any]]:
    history = (await client.get("/activity/history")).json()
    return [each["key"] for each in history["recent"]], history


async def test_activity_is_shown_to_its_own_key_and_to_the_servers(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("2026-12-01 08:00:00 INFO pensieve.server: started\n")
    parts = AppParts(activity=Activity(), find=lambda: [{"title": "a finding"}], log=log)
    async with team_of(tmp_path, *NAMES, parts=parts) as team:
        for name in EVERYONE:
            assert (await team[name].post("/v1/messages", json=CALL)).status_code == 200
        seen, whole = await _activity(team[""])
        own, part = await _activity(team["anna"])
    assert seen == [None, "ben", "anna"]
    assert own == ["anna"]
    assert whole["findings"]
    assert (part["findings"], part["log"]) == ([], [])
    assert "ben" not in str(part)
