"""`/v1/messages/batches` for clients, in memory and by Anthropic's client over a socket."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anthropic
import anyio
import httpx
import pytest
from anthropic import AsyncAnthropic

from pensieve.errors import EngineBusyError
from pensieve.paths import under_home
from tests.server.serving import CALL, KEY, SETTINGS, app_of, in_memory, listening
from tests.support.fakes import ScriptedEngine, says

pytestmark = pytest.mark.anyio
BATCHES = "/v1/messages/batches"


def entry(custom_id: str = "a", **params: object) -> dict[str, object]:
    return {"custom_id": custom_id, "params": CALL | params}


@pytest.fixture
async def client(tmp_path: Path):
    """The worker does not run: no batch is answered."""
    own = replace(SETTINGS, paths=under_home(tmp_path))
    async with in_memory(app_of(ScriptedEngine([says("ok")]), settings=own)) as client:
        yield client


async def create(client: httpx.AsyncClient, *entries: dict[str, object]) -> dict[str, object]:
    response = await client.post(BATCHES, json={"requests": entries or [entry()]})
    assert response.status_code == 200
    return response.json()


@asynccontextmanager
async def sdk(
    engine: ScriptedEngine, home: Path, **model: object
) -> AsyncGenerator[AsyncAnthropic]:
    own = replace(SETTINGS, paths=under_home(home))
    with anyio.fail_after(30):
        async with (
            listening(app_of(engine, settings=own, **model)) as url,
            AsyncAnthropic(base_url=url, api_key=KEY, max_retries=0) as client,
        ):
            yield client


async def ended(client: AsyncAnthropic, batch_id: str):
    while (batch := await client.messages.batches.retrieve(batch_id)).processing_status != "ended":
        await anyio.lowlevel.checkpoint()
    return batch


async def test_new_batch_is_in_progress(client: httpx.AsyncClient) -> None:
    batch = await create(client, entry("a"), entry("b"))
    assert batch == {
        "id": batch["id"],
        "type": "message_batch",
        "processing_status": "in_progress",
        "request_counts": {
            "processing": 2,
            "succeeded": 0,
            "errored": 0,
            "canceled": 0,
            "expired": 0,
        },
        "created_at": batch["created_at"],
        "expires_at": batch["expires_at"],
        "ended_at": None,
        "archived_at": None,
        "cancel_initiated_at": None,
        "results_url": None,
    }
    assert batch["id"].startswith("msgbatch_01")
    assert (await client.get(f"{BATCHES}/{batch['id']}")).json() == batch


async def test_batches_are_listed_in_pages(client: httpx.AsyncClient) -> None:
    batch_ids = [(await create(client))["id"] for _ in range(3)][::-1]
    page = (await client.get(f"{BATCHES}?limit=2")).json()
    assert [batch["id"] for batch in page["data"]] == batch_ids[:2]
    assert (page["has_more"], page["first_id"], page["last_id"]) == (True, *batch_ids[:2])
    page = (await client.get(f"{BATCHES}?after_id={batch_ids[1]}")).json()
    assert ([batch["id"] for batch in page["data"]], page["has_more"]) == (batch_ids[2:], False)
    page = (await client.get(f"{BATCHES}?before_id={batch_ids[2]}&limit=1")).json()
    assert ([batch["id"] for batch in page["data"]], page["has_more"]) == (batch_ids[1:2], True)


async def test_unfinished_batch_can_be_canceled_but_not_deleted(
    client: httpx.AsyncClient,
) -> None:
    batch = await create(client)
    canceling = (await client.post(f"{BATCHES}/{batch['id']}/cancel")).json()
    assert canceling["processing_status"] == "canceling"
    assert canceling["cancel_initiated_at"] >= batch["created_at"]
    deleted = await client.delete(f"{BATCHES}/{batch['id']}")
    assert deleted.status_code == 400
    assert "still being processed" in deleted.json()["error"]["message"]
    assert (await client.get(f"{BATCHES}/{batch['id']}/results")).status_code == 404


@pytest.mark.parametrize(
    ("method", "path"), [("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/results")]
)
@pytest.mark.parametrize("batch_id", ["msgbatch_nope", "..", "%2e%2e%2fx", "a%00b"])
async def test_unknown_batch_is_not_found(
    client: httpx.AsyncClient, method: str, path: str, batch_id: str
) -> None:
    response = await client.request(method, f"{BATCHES}/{batch_id}{path}")
    assert response.status_code in {404, 405}
    assert response.json()["error"]["type"] in {"not_found_error", "invalid_request_error"}


async def test_invalid_batch_returns_400_and_leaves_no_files(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    for content in (b"", b"[]", b"{}", b'{"requests": []}', b'{"requests": [{}]}'):
        response = await client.post(
            BATCHES, content=content, headers={"content-type": "application/json"}
        )
        assert response.status_code == 400
    files = {file.name for file in tmp_path.rglob("*") if file.is_file()}
    assert files == {"batches.db", "batches.db-wal", "batches.db-shm", "reserve"}


async def test_official_client_gets_each_result(tmp_path: Path) -> None:
    engine = ScriptedEngine([says("Hello!")])
    requests = [
        entry("good"),
        entry("again", max_tokens=2),
        entry("bad", max_tokens=-1),
        entry("streamed", stream=True),
        entry("long", messages=[{"role": "user", "content": "x" * 5000}]),
        {"custom_id": "empty", "params": {}},
    ]
    async with sdk(engine, tmp_path) as client:
        batch = await client.messages.batches.create(requests=requests)
        batch = await ended(client, batch.id)
        assert batch.results_url == f"{client.base_url}/v1/messages/batches/{batch.id}/results"
        results_by_id = {one.custom_id: one.result async for one in await results(client, batch.id)}
        (listed,) = [one async for one in client.messages.batches.list(limit=1)]
        deleted = await client.messages.batches.delete(batch.id)
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.batches.retrieve(batch.id)
    assert listed == batch
    assert (deleted.id, deleted.type) == (batch.id, "message_batch_deleted")
    assert (batch.request_counts.succeeded, batch.request_counts.errored) == (2, 4)
    assert batch.request_counts.processing == 0
    assert results_by_id["good"].message.content[0].text == "Hello!"
    assert results_by_id["good"].message.usage.service_tier == "batch"
    assert results_by_id["again"].message.stop_reason == "max_tokens"
    assert {
        name: one.error.error.message for name, one in results_by_id.items() if name[0] in "bsle"
    } == {
        "bad": "max_tokens: Input should be greater than or equal to 0",
        "streamed": "stream: Streaming is not supported in a message batch",
        "long": "prompt is too long: 5006 tokens > 4096 maximum",
        "empty": "model: Field required",
    }
    assert {generation.priority for generation in engine.generations} == {"batch"}


async def results(client: AsyncAnthropic, batch_id: str):
    return await client.messages.batches.results(batch_id)


async def test_official_client_cancels_running_batch(tmp_path: Path) -> None:
    engine = ScriptedEngine([[*says("Hello")[:3], anyio.Event()]])
    async with sdk(engine, tmp_path) as client:
        batch = await client.messages.batches.create(requests=[entry(one) for one in "abc"])
        with pytest.raises(anthropic.BadRequestError, match="cancel it before deleting"):
            await client.messages.batches.delete(batch.id)
        canceling = await client.messages.batches.cancel(batch.id)
        assert canceling.cancel_initiated_at is not None
        batch = await ended(client, batch.id)
    assert batch.request_counts.canceled == 3


async def test_batch_survives_server_restart(tmp_path: Path) -> None:
    busy = ScriptedEngine([[]], refusal=EngineBusyError("The model is still loading."))
    async with sdk(busy, tmp_path) as client:
        batch = await client.messages.batches.create(requests=[entry(one) for one in "abc"])
    async with sdk(ScriptedEngine([says("Hi")]), tmp_path) as client:
        again = await ended(client, batch.id)
        answers = [one async for one in await results(client, batch.id)]
    assert again.request_counts.succeeded == 3
    assert again.created_at == batch.created_at
    assert {one.custom_id for one in answers} == {"a", "b", "c"}


async def test_interactive_requests_are_answered_during_a_batch(tmp_path: Path) -> None:
    stuck = [*says("x")[:1], anyio.Event()]
    engine = ScriptedEngine([stuck, stuck, says("Hello")])
    async with sdk(engine, tmp_path) as client:
        await client.messages.batches.create(requests=[entry("a"), entry("b"), entry("c")])
        while len(engine.generations) < 2:
            await anyio.lowlevel.checkpoint()
        message = await client.messages.create(**CALL)
    assert message.content[0].text == "Hello"
    assert [one.priority for one in engine.generations] == ["batch", "batch", "main"]


async def test_official_client_uploads_and_references_files(tmp_path: Path) -> None:
    engine = ScriptedEngine([says("ok")])
    async with sdk(engine, tmp_path) as client:
        file = await client.files.upload(file=("story.md", b"Once upon"), expires_in_seconds=3600)
        other = await client.files.upload(file=("b.txt", b"b", "text/plain"))
        assert [one.id async for one in client.files.list(limit=1)] == [other.id, file.id]
        assert [one.id async for one in client.files.list(ids=[file.id])] == [file.id]
        assert await client.files.retrieve_metadata(file.id) == file
        assert await (await client.files.download(file.id)).read() == b"Once upon"
        source = {"type": "file", "file_id": file.id}
        messages = [{"role": "user", "content": [{"type": "document", "source": source}]}]
        await client.messages.create(**CALL | {"messages": messages})
        assert (await client.files.delete(file.id)).type == "file_deleted"
        with pytest.raises(anthropic.NotFoundError, match=f"File not found: {file.id}"):
            await client.messages.create(**CALL | {"messages": messages})
    assert (file.filename, file.size_bytes, file.downloadable) == ("story.md", 9, True)
    prompt = bytes(token for token in engine.generations[0].prompt_tokens if token < 256)
    assert b"Once upon" in prompt


async def test_official_client_pages_through_models(tmp_path: Path) -> None:
    async with sdk(ScriptedEngine([[]]), tmp_path, name="org/tiny") as client:
        listed = [model async for model in client.models.list(limit=1, lifecycle=["active"])]
        alias = await client.models.retrieve("claude-local/org/tiny")
    assert [model.id for model in listed] == ["org/tiny", "claude-local/org/tiny"]
    assert alias == listed[1]
    assert alias.capabilities.batch.supported is True


async def test_result_is_one_line_of_ascii(tmp_path: Path) -> None:
    async with sdk(ScriptedEngine([says("a\u2028b\né")]), tmp_path) as client:
        batch = await client.messages.batches.create(requests=[entry()])
        url = (await ended(client, batch.id)).results_url
        async with httpx.AsyncClient(headers={"x-api-key": KEY}) as plain:
            response = await plain.get(url)
    text = response.content
    assert response.headers["content-type"] == "application/x-jsonl"
    assert text.isascii()
    assert text.count(b"\n") == 1
    assert json.loads(text)["result"]["message"]["content"][0]["text"] == "a\u2028b\né"
