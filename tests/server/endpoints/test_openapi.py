"""The OpenAPI document is valid, complete, and matches real responses."""

import json
import re
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.routing import Route

from pensieve.errors import EngineBusyError, EngineError
from pensieve.paths import under_home
from tests.server.openai.calls import chunks_of
from tests.server.serving import CALL, SETTINGS, app_of, in_memory, stream_events
from tests.support.fakes import ScriptedEngine, says

pytestmark = pytest.mark.anyio


async def document_of(client: httpx.AsyncClient) -> dict[str, object]:
    response = await client.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    return response.json()


@pytest.fixture
async def document() -> dict[str, object]:
    """Fetched without a key."""
    async with in_memory(app_of(ScriptedEngine([[]])), {}) as client:
        return await document_of(client)


async def test_document_is_valid(document: dict[str, object]) -> None:
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []
    assert document["openapi"] == "3.1.0"


async def test_document_lists_exactly_the_routes(document: dict[str, object]) -> None:
    routes = {
        (route.path.replace(":path}", "}"), method.lower())
        for route in app_of(ScriptedEngine([[]])).routes
        if isinstance(route, Route)
        for method in route.methods or ()
    }
    documented = {(path, method) for path, item in document["paths"].items() for method in item}
    assert {(path, method) for path, method in routes if method != "head"} == documented
    names = [
        operation["operationId"]
        for item in document["paths"].values()
        for operation in item.values()
    ]
    assert len(set(names)) == len(names)


async def test_every_operation_documents_errors_and_request_id(
    document: dict[str, object],
) -> None:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            expected = {"200", "403", "500"} | (
                {"401"} if operation.get("security") != [] else set()
            )
            expected |= {"400", "413"} if "requestBody" in operation else set()
            assert expected <= operation["responses"].keys(), (path, method)
            assert all(
                {"request-id", "x-request-id"} <= answer["headers"].keys()
                for answer in operation["responses"].values()
            )


async def test_document_names_every_way_to_send_the_key_and_that_none_may_do(
    document: dict[str, object],
) -> None:
    schemes = document["components"]["securitySchemes"]
    assert document["security"] == [{name: []} for name in schemes] + [{}]
    assert schemes.keys() == {"x-api-key", "api-key", "bearer"}


async def test_document_states_request_limits(document: dict[str, object]) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["MessagesRequest"]["required"] == ["model", "messages", "max_tokens"]
    assert schemas["BatchEntry"]["properties"]["custom_id"]["maxLength"] == 64
    (limit,) = [
        parameter
        for parameter in document["paths"]["/v1/models"]["get"]["parameters"]
        if parameter["name"] == "limit"
    ]
    assert limit["schema"] | {"title": ""} == {
        "type": "integer",
        "minimum": 1,
        "maximum": 1000,
        "default": 20,
        "title": "",
    }


class Checked:
    """Validates responses against the document."""

    def __init__(self, document: dict[str, object]) -> None:
        self._document = document
        self.seen: set[tuple[str, str, int]] = set()

    async def check(self, response: httpx.Response) -> None:
        await response.aread()
        method = response.request.method.lower()
        template = self._template(response.request.url.path, method)
        documented = self._document["paths"][template][method]["responses"]
        assert str(response.status_code) in documented, (
            template,
            response.status_code,
            response.text,
        )
        media_type = response.headers["content-type"].partition(";")[0]
        content = documented[str(response.status_code)]["content"]
        schema = content.get(media_type, content.get("*/*"))
        assert schema is not None, (template, media_type)
        if media_type == "application/json" and "*/*" not in content:
            self.validate(response.json(), schema["schema"])
        elif media_type == "text/event-stream":
            read = chunks_of if "event: " not in response.text else stream_events
            for event in read(response.text):
                self.validate(event, {"anyOf": schema["x-parts"]})
        elif media_type == "application/x-jsonl":
            for line in response.text.splitlines():
                self.validate(json.loads(line), {"anyOf": schema["x-parts"]})
        self.seen.add((template, method, response.status_code))

    def validate(self, value: object, schema: dict[str, object]) -> None:
        whole = schema | {"components": self._document["components"]}
        Draft202012Validator(whole).validate(value)

    def _template(self, path: str, method: str) -> str:
        templates = [
            template
            for template, item in self._document["paths"].items()
            if method in item and re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), path)
        ]
        return min(templates, key=lambda template: template.count("{"))


async def check_responses(client: httpx.AsyncClient) -> None:
    call = {"input": "Hi", "tools": [{"type": "function", "name": "f"}, {"type": "web_search"}]}
    await client.post("/v1/responses", json={"input": 5})
    await client.post("/v1/responses", json=call | {"stream": True})
    await client.post("/v1/responses/input_tokens", json=call)
    at = f"/v1/responses/{(await client.post('/v1/responses', json=call)).json()['id']}"
    await client.get(at)
    await client.get(f"{at}/input_items")
    await client.post(f"{at}/cancel")
    await client.delete(at)
    await client.get(at)


FILE = {"file": ("a.txt", b"text", "text/plain")}


async def test_responses_match_document(document: dict[str, object], tmp_path: Path) -> None:
    checked = Checked(document)
    app = app_of(
        ScriptedEngine([says("Hello", cached_tokens=2)]),
        settings=replace(SETTINGS, paths=under_home(tmp_path)),
    )
    counted = {key: value for key, value in CALL.items() if key != "max_tokens"}
    async with app.router.lifespan_context(app), in_memory(app) as client:
        client.event_hooks = {"response": [checked.check]}
        for path in ("/", "/api/hello", "/health", "/metrics", "/openapi.json", "/v1/models"):
            await client.get(path)
        await client.get("/v1/models/bytes")
        await client.get("/v1/models/nope")
        version = {"anthropic-version": "2023-06-01"}
        for path in ("/v1/models", "/v1/models/bytes", "/v1/models/nope"):
            await client.get(path, headers=version)
        await client.post("/v1/messages", json=CALL)
        await client.post("/v1/messages", json=CALL | {"stream": True})
        await client.post("/v1/messages", json={})
        chat = {"messages": CALL["messages"]}
        await client.post("/v1/chat/completions", json=chat)
        await client.post("/v1/chat/completions", json=chat | {"stream": True})
        usage = {"stream": True, "stream_options": {"include_usage": True}}
        await client.post("/v1/chat/completions", json=chat | usage)
        await client.post("/v1/chat/completions", json={})
        text = {"prompt": "def f("}
        await client.post("/v1/completions", json=text)
        await client.post("/v1/completions", json=text | usage)
        await client.post("/v1/completions", json={})
        await check_responses(client)
        await client.post("/v1/messages/count_tokens", json=counted)
        batch = {"requests": [{"custom_id": "a", "params": CALL}, {"custom_id": "b", "params": {}}]}
        batch_id = (await client.post("/v1/messages/batches", json=batch)).json()["id"]
        at = f"/v1/messages/batches/{batch_id}"
        await client.delete(at)
        await client.get(f"{at}/results")
        while (await client.get(at)).json()["processing_status"] != "ended":
            pass
        await client.get("/v1/messages/batches")
        assert (await client.get(f"{at}/results")).text.count("\n") == 2
        await client.post(f"{at}/cancel")
        await client.delete(at)
        await client.get(at)
        file_id = (await client.post("/v1/files", files=FILE)).json()["id"]
        await client.post("/v1/files", json={})
        await client.get("/v1/files")
        await client.get("/v1/files?limit=x")
        await client.get(f"/v1/files/{file_id}")
        await client.get(f"/v1/files/{file_id}/content")
        await client.delete(f"/v1/files/{file_id}")
        await client.delete(f"/v1/files/{file_id}")
        await client.get("/activity")
        await client.get("/activity/history")
        client.headers["x-api-key"] = "wrong"
        await client.get("/v1/models")
    # No response is generated in the background, so none can be cancelled.
    assert ("/v1/responses/{response_id}/cancel", "post", 400) in checked.seen
    successes = {("/v1/responses/{response_id}/cancel", "post")}
    successes |= {(path, method) for path, method, status in checked.seen if status == 200}
    assert successes == {
        (path, method) for path, item in document["paths"].items() for method in item
    }
    assert {status for *_, status in checked.seen} == {200, 400, 401, 404}


@pytest.mark.parametrize(
    ("error", "status"), [(EngineBusyError("Overloaded"), 529), (EngineError("broken"), 500)]
)
async def test_engine_errors_match_document(
    document: dict[str, object], error: Exception, status: int
) -> None:
    checked = Checked(document)
    async with in_memory(app_of(ScriptedEngine([[]], refusal=error))) as client:
        client.event_hooks = {"response": [checked.check]}
        assert (await client.post("/v1/messages", json=CALL)).status_code == status
        chat = await client.post("/v1/chat/completions", json={"messages": CALL["messages"]})
        assert chat.status_code == {529: 503}.get(status, status)
