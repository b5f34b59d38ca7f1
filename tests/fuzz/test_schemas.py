"""The whole application answers or refuses tool schemas of arbitrary JSON, in every dialect."""

import json
from collections.abc import Iterator

import anyio.from_thread
import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.dialects.cases import DIALECTS
from tests.fuzz.examples import max_examples
from tests.fuzz.mutations import CALL, odd_values
from tests.fuzz.test_bodies import BlockingClient, assert_answered
from tests.server.serving import app_of
from tests.support.fakes import ScriptedEngine, says

KEYWORDS = [
    *["type", "enum", "const", "format", "pattern", "required", "properties", "items", "anyOf"],
    *["oneOf", "allOf", "$ref", "$defs", "additionalProperties", "prefixItems", "description"],
    *["minimum", "maxItems", "minLength", "multipleOf", "default", "title", "patternProperties"],
]
values = st.recursive(
    odd_values | st.sampled_from(["object", "string", "array", "null", "uri", "#", "#/$defs/a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYWORDS) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
schemas = st.dictionaries(st.sampled_from(KEYWORDS), values, max_size=5)
nested = schemas.map(lambda schema: {"type": "object", "properties": {"a": schema}})


@pytest.fixture(scope="module", params=DIALECTS)
def client(request: pytest.FixtureRequest) -> Iterator[BlockingClient]:
    app = app_of(ScriptedEngine([says("Hello!")]), dialect=DIALECTS[request.param])
    transport = httpx.ASGITransport(app)
    http = httpx.AsyncClient(transport=transport, base_url="http://localhost:7777")
    with anyio.from_thread.start_blocking_portal() as portal:
        yield BlockingClient(portal, http)


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
@max_examples(20)
@given(schema=schemas | nested, is_strict=st.booleans())
@example(schema={"type": [[]]}, is_strict=False)
@example(schema={"properties": {"a": {"anyOf": [False]}}}, is_strict=False)
@example(schema={"properties": {"a": {"enum": []}}}, is_strict=True)
@example(schema={"format": {}}, is_strict=True)
@example(schema={"properties": {"a": {"type": [{}], "format": [[]]}}}, is_strict=False)
@example(schema={"properties": {"a": {"$ref": [], "enum": {}}}, "required": [[]]}, is_strict=False)
def test_an_arbitrary_schema_is_answered_or_refused(
    path: str, schema: dict[str, object], is_strict: bool, client: BlockingClient
) -> None:
    tool = {"name": "tool", "input_schema": schema, "strict": is_strict}
    output_config = {"format": {"type": "json_schema", "schema": schema}}
    for body in (CALL | {"tools": [tool]}, CALL | {"output_config": output_config}):
        assert_answered(client.post(path, json.dumps(body).encode()))
