"""`/v1/models`: one model under its names."""

import pytest

from pensieve.engine.generation import EngineHealth
from tests.server.serving import KEY, app_of, in_memory
from tests.support.fakes import ScriptedEngine, says
from tests.support.pictures import SIGHT

pytestmark = pytest.mark.anyio
ENGINE = ScriptedEngine([says("ok")])
NAMES = ["org/tiny", "claude-local/org/tiny"]
HEADERS = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
NOTHING = {"data": [], "has_more": False, "first_id": None, "last_id": None}


async def listed(query: str = "") -> dict[str, object]:
    async with in_memory(app_of(ENGINE, name="org/tiny"), HEADERS) as client:
        return (await client.get(f"/v1/models{query}")).json()


async def test_served_model_is_listed_under_its_name_and_claude_alias() -> None:
    page = await listed("?limit=1000&beta=true")
    assert [model["id"] for model in page["data"]] == NAMES
    assert (page["first_id"], page["last_id"], page["has_more"]) == (*NAMES, False)
    for model in page["data"]:
        assert (model["display_name"], model["created_at"]) == ("org/tiny", "2023-11-14T22:13:20Z")
        assert (model["type"], model["lifecycle"]) == ("model", "active")
        assert (model["max_input_tokens"], model["max_tokens"]) == (4096, 4096)
        assert model["capabilities"]["batch"] == {"supported": True}
        assert model["capabilities"]["image_input"] == {"supported": False}
        assert model["capabilities"]["pdf_input"] == {"supported": True}


@pytest.mark.parametrize("sees", [True, False])
async def test_a_model_with_vision_says_so(sees: bool) -> None:
    engine = ScriptedEngine([says("ok")], health=EngineHealth("ready", sees=sees))
    async with in_memory(app_of(engine, sight=SIGHT)) as client:
        model = (await client.get("/v1/models")).json()["data"][0]
    assert model["capabilities"]["image_input"] == {"supported": sees}


async def test_pages_go_forward_and_back() -> None:
    first = await listed("?limit=1")
    assert ([model["id"] for model in first["data"]], first["has_more"]) == (NAMES[:1], True)
    second = await listed(f"?limit=1&after_id={NAMES[0]}")
    assert ([model["id"] for model in second["data"]], second["has_more"]) == (NAMES[1:], False)
    assert await listed(f"?before_id={NAMES[1]}") == first | {"has_more": False}
    assert await listed(f"?after_id={NAMES[1]}") == NOTHING
    assert await listed(f"?before_id={NAMES[0]}") == NOTHING


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("lifecycle[]=active", 2),
        ("lifecycle[]=retired&lifecycle[]=active", 2),
        ("lifecycle%5B%5D=retired", 0),
        ("lifecycle[]=deprecated", 0),
    ],
)
async def test_models_are_listed_by_lifecycle(query: str, count: int) -> None:
    assert len((await listed(f"?{query}"))["data"]) == count


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("limit=0", "limit: Input should be greater than or equal to 1"),
        ("limit=1001", "limit: Input should be less than or equal to 1000"),
        ("limit=x", "limit: Input should be a valid integer"),
        ("after_id=nobody", "after_id: no object here has this id"),
        ("lifecycle[]=young", "lifecycle[].0: Input should be 'active', 'deprecated' or 'retired'"),
    ],
)
async def test_invalid_query_is_refused(query: str, message: str) -> None:
    error = (await listed(f"?{query}"))["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith(message)


@pytest.mark.parametrize(
    ("path", "model_id"),
    [
        ("org/tiny", NAMES[0]),
        ("org%2Ftiny", NAMES[0]),
        ("someone/org/tiny", NAMES[0]),
        ("claude-local/org/tiny", NAMES[1]),
        ("claude-local%2Forg%2Ftiny", NAMES[1]),
        ("org/tiny/", NAMES[0]),
    ],
)
async def test_model_is_retrieved_by_each_of_its_names(path: str, model_id: str) -> None:
    async with in_memory(app_of(ENGINE, name="org/tiny"), HEADERS) as client:
        response = await client.get(f"/v1/models/{path}")
    assert response.json()["id"] == model_id


@pytest.mark.parametrize("path", ["claude-nope", "tiny", "Org/tiny"])
async def test_unknown_model_error_names_it(path: str) -> None:
    async with in_memory(app_of(ENGINE, name="org/tiny"), HEADERS) as client:
        response = await client.get(f"/v1/models/{path}")
    assert response.status_code == 404
    assert response.json()["error"] == {"type": "not_found_error", "message": f"model: {path}"}


async def test_model_reports_context_that_memory_guarantees() -> None:
    engine = ScriptedEngine([[]], health=EngineHealth("ready", context_tokens=1000))
    async with in_memory(app_of(engine, name="tiny")) as client:
        model = (await client.get("/v1/models/tiny")).json()
    assert (model["max_input_tokens"], model["max_tokens"]) == (1000, 1000)


OPENAI_KEYS = {
    "id": "org/tiny",
    "object": "model",
    "created": 1_700_000_000,
    "owned_by": "pensieve",
}


async def test_models_have_the_keys_of_both_apis_for_clients_that_name_no_version() -> None:
    theirs = await listed()
    async with in_memory(app_of(ENGINE, name="org/tiny")) as client:
        page = (await client.get("/v1/models")).json()
        model = (await client.get("/models/org%2Ftiny")).json()
    assert page["object"] == "list"
    assert page["data"][0] == model
    assert OPENAI_KEYS.items() <= model.items()
    assert model["context_length"] == 4096
    assert theirs["data"][0].items() <= model.items()
    assert "object" not in theirs["data"][0]
    assert {key: page[key] for key in NOTHING if key != "data"}.items() <= theirs.items()


async def test_unknown_model_has_openais_error_for_clients_that_name_no_version() -> None:
    async with in_memory(app_of(ENGINE, name="org/tiny")) as client:
        response = await client.get("/v1/models/gpt-x")
        query = (await client.get("/v1/models?limit=0")).json()["error"]
    assert response.status_code == 404
    assert response.json()["error"] == {
        "message": "There is no model 'gpt-x'.",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }
    assert (query["param"], query["type"]) == ("limit", "invalid_request_error")
