"""`POST /v1/responses` and the stored responses, in memory."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pensieve.engine.generation import (
    Finished,
    Generation,
    Logprobs,
    Prefilled,
    Sampling,
    Started,
    Token,
)
from pensieve.errors import EngineBusyError, GrammarError
from pensieve.paths import under_home
from pensieve.server.app import AppParts
from pensieve.server.http.event_stream import PingInterval
from tests.server.messages.test_golden import THINKER, THOUGHT
from tests.server.openai.calls import PATCHED, RESPOND, RESPOND_STREAM, SPACE, SPACED
from tests.server.serving import SETTINGS, app_of, in_memory, kinds, listening, stream_events
from tests.support.fakes import ByteTokenizer, ScriptedEngine, says

pytestmark = pytest.mark.anyio
PATH = "/v1/responses"
CLOCK = {"type": "function", "name": "clock", "parameters": {"type": "object"}}
STRICT = CLOCK | {"name": "s", "strict": True, "parameters": {"type": "object", "not": {}}}
SEARCH = {"type": "web_search"}
USER = {"type": "message", "role": "user", "content": "hello"}


def freeform(**grammar: str) -> dict[str, Any]:
    return {"type": "custom", "name": "patch", "format": {"type": "grammar", **grammar}}


@asynccontextmanager
async def client_of(
    engine: ScriptedEngine, home: Path | None = None, **app: Any
) -> AsyncGenerator[httpx.AsyncClient]:
    """Connect to a server that stores responses in `home`; without one, nothing is stored."""
    if home is None:
        async with in_memory(app_of(engine, **app)) as client:
            yield client
        return
    server = app_of(engine, settings=replace(SETTINGS, paths=under_home(home)), **app)
    async with server.router.lifespan_context(server), in_memory(server) as client:
        yield client


async def post(engine: ScriptedEngine, call: dict[str, Any], **app: Any) -> httpx.Response:
    async with client_of(engine, **app) as client:
        return await client.post(PATH, json=call)


async def generated(call: dict[str, Any], **app: Any) -> Generation:
    """Return what the engine gets."""
    engine = ScriptedEngine([says("ok")])
    response = await post(engine, RESPOND | call, **app)
    assert response.status_code == 200, response.text
    (generation,) = engine.generations
    return generation


def prompt_of(generation: Generation) -> str:
    return ByteTokenizer().decode(generation.prompt_tokens)


# What reaches the engine.


async def test_instructions_and_items_reach_the_prompt_in_order() -> None:
    items = [
        {"role": "developer", "content": "no jokes"},
        {"role": "user", "content": [{"type": "input_text", "text": "one"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "two"}]},
        {"type": "message", "role": "user", "content": "three"},
    ]
    generation = await generated({"instructions": "be brief", "input": items})
    assert prompt_of(generation) == (
        "<|system|>\nbe brief\n\nno jokes<|end|>\n<|user|>\none<|end|>\n<|assistant|>\ntwo<|end|>\n"
        "<|user|>\nthree<|end|>\n<|assistant|>\n"
    )


@pytest.mark.parametrize(
    ("fields", "max_tokens"), [({}, 89), ({"max_output_tokens": 5}, 5), ({"input": ""}, 1)]
)
async def test_without_a_limit_the_context_is_the_bound(fields: dict, max_tokens: int) -> None:
    assert (await generated(fields, context_tokens=100)).max_tokens == max_tokens


async def test_sampling_is_the_requests() -> None:
    generation = await generated({"temperature": 0.5, "top_p": 0.9})
    assert generation.sampling == replace(Sampling(0.5, 0.9), seed=generation.sampling.seed)
    penalties = {"frequency_penalty": 0.5, "presence_penalty": -1, "logit_bias": {"97": 2}}
    assert (await generated(penalties)).sampling == Sampling(
        frequency_penalty=0.5, presence_penalty=-1, logit_bias=((97, 2),)
    )


@pytest.mark.parametrize(
    ("fields", "top"),
    [
        ({}, None),
        ({"top_logprobs": 0}, None),
        ({"include": ["message.output_text.logprobs"]}, 0),
        ({"include": ["message.output_text.logprobs"], "top_logprobs": 3}, 3),
        ({"top_logprobs": 3}, 3),
    ],
)
async def test_logprobs_are_generated_if_they_are_included_or_counted(
    fields: dict[str, Any], top: int | None
) -> None:
    assert (await generated(fields)).top_logprobs == top


async def test_response_has_the_logprobs_of_its_text() -> None:
    script = [Started(0), *(Token(byte, Logprobs(-0.5)) for byte in b"Hi"), Finished("length", 2)]
    call = RESPOND | {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    response = (await post(ScriptedEngine([script]), call)).json()
    (part,) = response["output"][0]["content"]
    assert [(one["token"], one["logprob"]) for one in part["logprobs"]] == [
        ("H", -0.5),
        ("i", -0.5),
    ]
    assert response["top_logprobs"] == 2


async def test_a_forced_tool_is_the_only_one_in_the_grammar() -> None:
    forced = {"type": "function", "name": "find", "namespace": "mcp__x"}
    tools = {"tools": [CLOCK, SPACE]}
    lark = (await generated(tools | {"tool_choice": forced})).grammar.lark
    assert ("mcp__x__find" in lark, "clock" in lark) == (True, False)
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [forced]}
    subset = await generated(tools | {"tool_choice": allowed})
    assert ("mcp__x__find" in subset.grammar.lark, "clock" in subset.grammar.lark) == (True, False)
    assert "clock" in prompt_of(subset)


async def test_a_text_format_becomes_a_grammar() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    form = {"type": "json_schema", "name": "n", "schema": schema}
    assert '"a"' in (await generated({"text": {"format": form}})).grammar.lark
    assert (await generated({"text": {"format": {"type": "json_object"}}})).grammar is not None
    assert (await generated({"text": {"format": {"type": "text"}}})).grammar is None


# Streams.


@given(text=st.text(max_size=20), has_summary=st.booleans())
@settings(max_examples=30)
def test_whole_response_equals_the_end_of_its_stream(text: str, has_summary: bool) -> None:
    anyio.run(_whole_and_streamed, text, has_summary)


async def _whole_and_streamed(text: str, has_summary: bool) -> None:
    call = RESPOND | {"reasoning": {"summary": "auto" if has_summary else None}}
    engine = ScriptedEngine([says(f"<think>\n{text}\n</think>\n{text}")])
    whole = (await post(engine, call, dialect=THINKER)).json()
    response = await post(engine, call | {"stream": True}, dialect=THINKER)
    assert response.text.isascii()
    last = stream_events(response.text)[-1]["response"]
    assert [_bare(item) for item in last["output"]] == [_bare(item) for item in whole["output"]]
    assert last["usage"] == whole["usage"]


def _bare(item: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name != "id"}


async def test_a_silent_stream_repeats_in_progress_with_running_numbers(tmp_path: Path) -> None:
    quiet, written = anyio.Event(), ""
    script = [Started(0), Prefilled(5), quiet, *says("Hi")[1:]]
    home = replace(SETTINGS, paths=under_home(tmp_path))
    app = app_of(
        ScriptedEngine([script]),
        settings=home,
        parts=AppParts(ping_interval=PingInterval(ping_s=0.02)),
    )
    async with (
        listening(app) as url,
        httpx.AsyncClient(headers={"x-api-key": "pensieve-local-key"}) as client,
        client.stream("POST", url + PATH, json=RESPOND_STREAM) as response,
    ):
        async for piece in response.aiter_text():
            written += piece
            if written.count("event: response.in_progress") > 3:
                quiet.set()
    events = stream_events(written)
    assert kinds(events)[:5] == ["response.created", *["response.in_progress"] * 4]
    assert kinds(events)[-1] == "response.completed"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


async def test_refusals_have_their_status_before_the_stream_begins() -> None:
    engine = ScriptedEngine([[]], refusal=EngineBusyError("Overloaded"))
    busy = await post(engine, RESPOND_STREAM)
    assert (busy.status_code, busy.json()["error"]["code"]) == (503, "server_is_overloaded")
    assert busy.headers["retry-after"] == "2"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (
            {"tools": [CLOCK, {"type": "web_search"}, SPACE | {"tools": [CLOCK, STRICT]}]},
            "tools[2].tools[1]",
        ),
        (
            {"text": {"format": {"type": "json_schema", "schema": {"not": {}}, "strict": True}}},
            "text.format.schema",
        ),
        (
            {
                "tools": [
                    SEARCH,
                    SPACE | {"tools": [CLOCK, freeform(syntax="lark", definition="?")]},
                ]
            },
            "tools[1].tools[1].format.definition",
        ),
        (
            {"tools": [freeform(syntax="regex", definition="(?=a)")]},
            "tools[0].format.definition",
        ),
        (
            {"tools": [freeform(syntax="gbnf", definition="")]},
            "tools[0].format.syntax",
        ),
    ],
)
async def test_later_errors_name_the_clients_fields(fields: dict, param: str) -> None:
    response = await post(ScriptedEngine([says("x")]), RESPOND | fields)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    async with client_of(ScriptedEngine([])) as client:
        counted = await client.post(f"{PATH}/input_tokens", json=RESPOND | fields)
    assert counted.json() == response.json()


@pytest.mark.parametrize("stream", [True, False])
async def test_a_grammar_of_a_tool_that_does_not_compile_is_refused(stream: bool) -> None:
    engine = ScriptedEngine([[GrammarError("too complex")]])
    tools = [SEARCH, SPACE | {"tools": [freeform(syntax="regex", definition="a")]}]
    response = await post(engine, RESPOND | {"tools": tools, "stream": stream})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == "tools[1].tools[0].format.definition"
    assert "The grammar of mcp__x__patch cannot be enforced: too complex" in error["message"]


async def test_a_grammar_that_does_not_compile_fails_its_response() -> None:
    schema = {"type": "object", "properties": {}}
    form = {"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}}
    engine = ScriptedEngine([[Started(0), GrammarError("too complex")]])
    response = await post(engine, RESPOND_STREAM | {"text": form})
    last = stream_events(response.text)[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["error"]["code"] == "invalid_prompt"


async def test_the_path_is_answered_without_v1() -> None:
    async with client_of(ScriptedEngine([says("Hi")])) as client:
        for path in ("/responses", "/v1/v1/responses/"):
            assert (await client.post(path, json=RESPOND)).status_code == 200


# Stored responses.


async def test_a_response_is_retrieved_and_deleted(tmp_path: Path) -> None:
    async with client_of(ScriptedEngine([says("Hi")]), tmp_path) as client:
        created = await client.post(PATH, json=RESPOND)
        at = f"{PATH}/{created.json()['id']}"
        assert (await client.get(at)).json() == created.json()
        deleted = await client.delete(at)
        assert deleted.json() == {"id": at[14:], "object": "response", "deleted": True}
        missing = await client.get(at)
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")


async def test_a_streamed_response_is_stored(tmp_path: Path) -> None:
    async with client_of(ScriptedEngine([says("Hi")]), tmp_path) as client:
        events = stream_events((await client.post(PATH, json=RESPOND_STREAM)).text)
        last = events[-1]["response"]
        assert (await client.get(f"{PATH}/{last['id']}")).json() == last


async def test_a_response_is_not_stored_against_the_clients_will(tmp_path: Path) -> None:
    async with client_of(ScriptedEngine([says("Hi")]), tmp_path) as client:
        created = (await client.post(PATH, json=RESPOND | {"store": False})).json()
        assert created["store"] is False
        assert (await client.get(f"{PATH}/{created['id']}")).status_code == 404
    assert not (tmp_path / "state" / "responses").exists()


async def test_the_previous_response_is_continued_also_after_a_restart(tmp_path: Path) -> None:
    engine = ScriptedEngine([says("one"), says("two"), says("three")])
    async with client_of(engine, tmp_path) as client:
        first = await client.post(PATH, json=RESPOND | {"instructions": "be brief"})
        call = RESPOND | {"input": "again", "previous_response_id": first.json()["id"]}
        second = await client.post(PATH, json=call)
        assert second.json()["previous_response_id"] == first.json()["id"]
    async with client_of(engine, tmp_path) as client:
        call = RESPOND | {"input": "more", "previous_response_id": second.json()["id"]}
        assert (await client.post(PATH, json=call)).status_code == 200
    assert prompt_of(engine.generations[-1]) == (
        "<|user|>\nhello<|end|>\n<|assistant|>\none<|end|>\n<|user|>\nagain<|end|>\n"
        "<|assistant|>\ntwo<|end|>\n<|user|>\nmore<|end|>\n<|assistant|>\n"
    )


def items_of(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return answer["output"]


def references_to(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Refer to thoughts as some clients do, and send the rest back."""
    return [
        {"type": "item_reference", "id": item["id"]} if item["type"] == "reasoning" else item
        for item in answer["output"]
    ]


@pytest.mark.parametrize("way", ["sealed", "references", "previous"])
@pytest.mark.parametrize("tools", [[CLOCK, SPACE], [SPACE, {"type": "custom", "name": "patch"}]])
async def test_the_next_prompt_begins_with_the_answer_as_it_was_generated(
    tmp_path: Path, way: str, tools: list[dict[str, Any]]
) -> None:
    text = f"<think>\nHm.\n</think>\n\nI look. {SPACED.removeprefix('Let me look.')}"
    text += f"\n{PATCHED}" if len(tools[1]) == 2 else ""
    engine = ScriptedEngine([says(text), says("Done.")])
    call = RESPOND | {"tools": tools, "input": [USER]}
    if way == "sealed":
        call |= {"store": False, "include": ["reasoning.encrypted_content"]}
    async with client_of(engine, tmp_path, dialect=THINKER) as client:
        answer = (await client.post(PATH, json=call)).json()
        results = [
            {"type": item["type"] + "_output", "call_id": item["call_id"], "output": "ok"}
            for item in answer["output"]
            if "call_id" in item
        ]
        following = {
            "sealed": lambda: {"input": [USER, *items_of(answer), *results]},
            "references": lambda: {"input": [USER, *references_to(answer), *results]},
            "previous": lambda: {"input": results, "previous_response_id": answer["id"]},
        }[way]()
        assert (await client.post(PATH, json=call | following)).status_code == 200
    first, second = (generation.prompt_tokens for generation in engine.generations)
    whole = [*first, *text.encode()]
    assert list(second[: len(whole)]) == whole


async def test_input_items_are_listed_in_pages(tmp_path: Path) -> None:
    engine = ScriptedEngine([says("one"), says(THOUGHT)])
    async with client_of(engine, tmp_path) as client:
        first = (await client.post(PATH, json=RESPOND)).json()
        items = [{"role": "user", "content": "again"}, {**USER, "id": "msg_theirs"}]
        call = RESPOND | {"input": items, "previous_response_id": first["id"]}
        at = f"{PATH}/{(await client.post(PATH, json=call)).json()['id']}/input_items"
        page = (await client.get(at, params={"order": "asc"})).json()
        assert [item.get("role") for item in page["data"]] == ["user", "assistant", "user", "user"]
        assert page["data"][0]["content"] == [{"type": "input_text", "text": "hello"}]
        assert page["data"][1] == first["output"][0]
        assert page["data"][3]["id"] == page["last_id"] == "msg_theirs"
        assert page["has_more"] is False
        newest = (await client.get(at, params={"limit": 1})).json()
        assert (newest["first_id"], newest["has_more"]) == ("msg_theirs", True)
        after = (await client.get(at, params={"after": "msg_theirs", "limit": 2})).json()
        assert after["data"] == page["data"][2:0:-1]
        for params in ({"after": "none"}, {"limit": 0}, {"order": "up"}):
            assert (await client.get(at, params=params)).status_code == 400


async def test_what_only_background_responses_have_is_refused(tmp_path: Path) -> None:
    async with client_of(ScriptedEngine([says("Hi")]), tmp_path) as client:
        at = f"{PATH}/{(await client.post(PATH, json=RESPOND)).json()['id']}"
        assert (await client.post(f"{at}/cancel")).status_code == 400
        assert (await client.get(at, params={"stream": "true"})).json()["error"][
            "param"
        ] == "stream"
        assert (await client.get(at, params={"starting_after": "3"})).status_code == 400
        assert (await client.get(at, params={"stream": "false"})).status_code == 200
        assert (await client.post(f"{PATH}/resp_none/cancel")).status_code == 404


async def test_input_tokens_are_those_of_the_response(tmp_path: Path) -> None:
    engine = ScriptedEngine([says("Hi")])
    async with client_of(engine, tmp_path) as client:
        first = (await client.post(PATH, json=RESPOND)).json()
        call = {"input": "more", "tools": [CLOCK], "previous_response_id": first["id"]}
        counted = await client.post(f"{PATH}/input_tokens", json=call)
        assert counted.json() == {
            "object": "response.input_tokens",
            "input_tokens": (await client.post(PATH, json=call)).json()["usage"]["input_tokens"],
        }


async def test_input_tokens_of_an_overlong_input_are_estimated() -> None:
    async with client_of(ScriptedEngine([]), context_tokens=10) as client:
        counted = await client.post(f"{PATH}/input_tokens", json={"input": "x" * 400})
    assert counted.json()["input_tokens"] > 100


async def test_bodies_are_plain_json() -> None:
    response = await post(ScriptedEngine([says("é")]), RESPOND)
    assert response.text.isascii()
    assert json.loads(response.text)["output"][0]["content"][0]["text"] == "é"
