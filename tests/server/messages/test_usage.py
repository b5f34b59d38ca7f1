"""`count_tokens` equals the sum of input, cache read and cache write tokens of the same request."""

from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pensieve.engine.generation import EngineHealth
from tests.server.serving import CALL, app_of, in_memory, stream_events
from tests.support.fakes import ByteTokenizer, ScriptedEngine, says

pytestmark = pytest.mark.anyio

texts = st.text("ab <|>\né", min_size=1, max_size=8)
marks = st.sampled_from(
    [
        {},
        {},
        {"cache_control": {"type": "ephemeral"}},
        {"cache_control": {"type": "ephemeral", "ttl": "1h"}},
    ]
)


def block(kind: str, text: str) -> dict[str, Any]:
    source = {"type": "text", "media_type": "text/plain", "data": text}
    return {
        "text": {"type": "text", "text": text},
        "document": {"type": "document", "source": source, "title": text},
        "search_result": {"type": "search_result", "source": text, "title": text, "content": []},
        "thinking": {"type": "thinking", "thinking": text, "signature": "s"},
        "compaction": {"type": "compaction", "content": text},
    }[kind]


def blocks(kinds: list[str]) -> st.SearchStrategy[list[dict[str, Any]]]:
    one_block = st.builds(
        lambda kind, text, mark: block(kind, text) | mark, st.sampled_from(kinds), texts, marks
    )
    return st.lists(one_block, min_size=1, max_size=3)


users = st.builds(
    lambda content: {"role": "user", "content": [block("text", "u"), *content]},
    blocks(["text", "document", "search_result"]),
)
assistants = st.builds(
    lambda content: {"role": "assistant", "content": content},
    blocks(["text", "thinking", "compaction"]),
)
notes = st.builds(
    lambda content, clear_at: {"role": "system", "content": content, "clear_at": clear_at},
    blocks(["text"]),
    st.sampled_from(["never", "next_user_message"]),
)


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    messages = [draw(users)]
    for n in range(draw(st.integers(0, 3))):
        name = f"call{n}"
        use = {"type": "tool_use", "id": name, "name": "t", "input": {"a": draw(texts)}}
        result = {"type": "tool_result", "tool_use_id": name, "content": draw(texts)} | draw(marks)
        messages += draw(
            st.sampled_from(
                [
                    [draw(assistants), draw(users)],
                    [draw(notes)],
                    [draw(notes), draw(assistants), draw(users)],
                    [
                        {"role": "assistant", "content": [use]},
                        {"role": "user", "content": [result]},
                    ],
                ]
            )
        )
    edits = {
        "edits": [
            draw(st.sampled_from([CLEAR, CLEAR | {"keep": {"type": "tool_uses", "value": 0}}]))
        ]
    }
    optional = {
        "system": draw(blocks(["text"])),
        "tools": [{"name": "t", "input_schema": {}} | draw(marks)],
        "context_management": edits,
        "cache_control": {"type": "ephemeral"},
    }
    chosen = draw(st.sets(st.sampled_from(sorted(optional))))
    prefill = draw(st.sampled_from([[], [{"role": "assistant", "content": "Sure, "}]]))
    return CALL | {"messages": messages + prefill} | {name: optional[name] for name in chosen}


CLEAR = {"type": "clear_tool_uses_20250919", "trigger": {"type": "tool_uses", "value": 1}}


@given(calls(), st.floats(0, 1), st.sampled_from(["anywhere", "first", "ignored", "never"]))
@settings(max_examples=60)
def test_count_equals_sum_of_usage_in_every_mode(
    call: dict[str, Any], share: float, kind: str
) -> None:
    anyio.run(_compare, call, share, kind)


async def _compare(call: dict[str, Any], share: float, kind: str) -> None:
    tokenizer = ByteTokenizer(kind)
    async with in_memory(app_of(ScriptedEngine([[]]), tokenizer=tokenizer)) as client:
        response = await client.post("/v1/messages/count_tokens", json=call)
    count = response.json()
    cached = int(share * (count["input_tokens"] - 1))
    engine = ScriptedEngine([says("ok", cached_tokens=cached)])
    async with in_memory(app_of(engine, tokenizer=tokenizer)) as client:
        whole = (await client.post("/v1/messages", json=call)).json()
        response = await client.post("/v1/messages", json=call | {"stream": True})
        silent = (await client.post("/v1/messages", json=call | {"max_tokens": 0})).json()
    events = stream_events(response.text)
    usages = [events[0]["message"]["usage"], events[-2]["usage"], whole["usage"], silent["usage"]]
    for usage in usages:
        assert usage["cache_read_input_tokens"] == cached
        assert _sum(usage) == count["input_tokens"] == len(engine.generations[0].prompt_tokens)
    for usage in (usages[0], usages[2]):
        written = usage["cache_creation"]
        assert sum(written.values()) == usage["cache_creation_input_tokens"]
    if "cache_control" not in str(call):
        assert usages[0]["cache_creation_input_tokens"] == 0
    _check_edits(call, count, whole)


def _sum(usage: dict[str, Any]) -> int:
    read, written = usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]
    return usage["input_tokens"] + read + written


def _check_edits(call: dict[str, Any], count: dict[str, Any], whole: dict[str, Any]) -> None:
    if "context_management" not in call:
        assert "context_management" not in count
        assert whole["context_management"] is None
        return
    cleared = sum(
        edit["cleared_input_tokens"] for edit in whole["context_management"]["applied_edits"]
    )
    original = count["context_management"]["original_input_tokens"]
    assert original == count["input_tokens"] + cleared


async def test_first_call_writes_cache_and_second_reads_it() -> None:
    call = CALL | {"cache_control": {"type": "ephemeral"}, "system": "be brief " * 9}
    engine = ScriptedEngine([says("ok"), says("ok", cached_tokens=30)])
    async with in_memory(app_of(engine)) as client:
        first = (await client.post("/v1/messages", json=call)).json()["usage"]
        second = (await client.post("/v1/messages", json=call)).json()["usage"]
    assert first["cache_creation_input_tokens"] > 0
    assert (
        first["cache_creation_input_tokens"] == first["cache_creation"]["ephemeral_5m_input_tokens"]
    )
    assert second["cache_read_input_tokens"] == 30
    assert second["cache_creation_input_tokens"] < first["cache_creation_input_tokens"]
    assert min(first["input_tokens"], second["input_tokens"]) > 0


async def test_memory_bounds_the_context() -> None:
    engine = ScriptedEngine([says("y" * 99)], health=EngineHealth("ready", context_tokens=60))
    async with in_memory(app_of(engine)) as client:
        answer = (await client.post("/v1/messages", json=CALL | {"max_tokens": 9000})).json()
        long = CALL | {"messages": [{"role": "user", "content": "x" * 60}]}
        refused = await client.post("/v1/messages", json=long)
    assert answer["stop_reason"] == "model_context_window_exceeded"
    assert _sum(answer["usage"]) + answer["usage"]["output_tokens"] == 60
    assert refused.json()["error"]["message"].endswith(" tokens > 60 maximum")


@pytest.mark.parametrize(
    ("headers", "fields", "priority"),
    [
        ({}, {}, "main"),
        ({"x-claude-code-session-id": "s"}, {"tools": [{"name": "t", "input_schema": {}}]}, "main"),
        ({"x-claude-code-session-id": "s"}, {}, "side"),
        (
            {"x-claude-code-session-id": "s"},
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            "side",
        ),
        ({"x-claude-code-agent-id": "a", "x-claude-code-session-id": "s"}, {}, "agent"),
        ({"x-claude-code-parent-agent-id": "a"}, {}, "agent"),
    ],
)
async def test_priority_follows_claude_codes_headers(
    headers: dict[str, str], fields: dict[str, Any], priority: str
) -> None:
    engine = ScriptedEngine([says("ok")])
    async with in_memory(app_of(engine)) as client:
        await client.post("/v1/messages", json=CALL | fields, headers=headers)
    assert engine.generations[0].priority == priority


async def test_engine_gets_prefix_boundaries_of_prompt() -> None:
    engine = ScriptedEngine([says("ok")])
    async with in_memory(app_of(engine)) as client:
        await client.post("/v1/messages", json=CALL | {"system": "be brief"})
    (generation,) = engine.generations
    assert 0 < generation.pinned_tokens < generation.boundaries[-1] < len(generation.prompt_tokens)
    assert generation.pinned_tokens in generation.boundaries
