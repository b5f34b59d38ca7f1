"""No client text becomes a control token, in any field, for every tokenizer and every token."""

import json
from typing import Any

import pytest

from pensieve.api.messages.request import Conversation, decode
from pensieve.prompt.render import PromptRenderer
from tests.prompt.chat_models import DIALECTS, MODELS

# Conversations with MARK in one field, for each field with a client's text.
MARK = "MARK"
RENDERERS = {name: PromptRenderer(MODELS[name], DIALECTS[name]) for name in MODELS}
USE = {"type": "tool_use", "id": "a", "name": "t", "input": {}}
ANSWERED = {"type": "tool_result", "tool_use_id": "a", "content": "ok"}
SOURCE = {"type": "text", "media_type": "text/plain", "data": "body"}
DOCUMENT = {"type": "document", "source": SOURCE}
FOUND = {"type": "search_result", "source": "s", "title": "t", "content": []}


def said(*blocks: dict[str, Any], answer: dict[str, Any] = USE) -> dict[str, Any]:
    text = {"type": "text", "text": "hi"}
    return {
        "messages": [
            {"role": "user", "content": [text, *blocks]},
            {"role": "assistant", "content": [text, answer]},
            {"role": "user", "content": [ANSWERED]},
        ]
    }


def result(*parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    answered = ANSWERED | {"content": [{"type": "text", "text": "ok"}, *parts]} | fields
    return {"messages": [*said()["messages"][:2], {"role": "user", "content": [answered]}]}


def tool(**fields: Any) -> dict[str, Any]:
    return said() | {"tools": [{"name": "t", "input_schema": {"type": "object"}} | fields]}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


FIELDS: dict[str, dict[str, Any]] = {
    "system": said() | {"system": MARK},
    "system block": said() | {"system": [text("x"), text(MARK)]},
    "user text": said(text(MARK)),
    "user text at the edge of blocks": said(text(MARK[:2]), text(MARK)),
    "assistant text": said(answer=USE)
    | {"messages": [*said()["messages"], {"role": "assistant", "content": MARK}]},
    "earlier assistant text": {
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": MARK},
            {"role": "user", "content": "hi"},
        ]
    },
    "system turn": {"messages": [*said()["messages"], {"role": "system", "content": MARK}]},
    "tool description": tool(description=MARK),
    "tool schema key": tool(input_schema={"type": "object", "properties": {MARK: {}}}),
    "tool schema value": tool(input_schema={"type": "object", "description": MARK}),
    "tool use name": said(answer=USE | {"name": MARK}),
    "tool use input key": said(answer=USE | {"input": {MARK: 1}}),
    "tool use input value": said(answer=USE | {"input": {"a": [MARK]}}),
    "tool result": result(content=MARK),
    "tool result text": result(text(MARK)),
    "tool error": result(text(MARK), is_error=True),
    "tool reference": result({"type": "tool_reference", "tool_name": MARK}),
    "browser state": result({"type": "browser_state", "tabs": [{MARK: MARK}]}),
    "document in a result": result(DOCUMENT | {"title": MARK}),
    "document title": said(DOCUMENT | {"title": MARK}),
    "document context": said(DOCUMENT | {"context": MARK}),
    "document text": said(DOCUMENT | {"source": SOURCE | {"data": MARK}}),
    "document block": said(DOCUMENT | {"source": {"type": "content", "content": MARK}}),
    "search result source": said(FOUND | {"source": MARK}),
    "search result title": said(FOUND | {"title": MARK}),
    "search result text": said(FOUND | {"content": [text(MARK)]}),
    "server tool use": said(
        answer={"type": "server_tool_use", "id": "s", "name": MARK, "input": {MARK: MARK}}
    ),
    "server tool result": said(
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"title": MARK}]}
    ),
    "mcp tool use": said({"type": "mcp_tool_use", "id": "m", "name": MARK, "input": {MARK: MARK}}),
    "mcp tool result": said({"type": "mcp_tool_result", "tool_use_id": "m", "content": MARK}),
    "container upload": said({"type": "container_upload", "file_id": MARK}),
    "compaction": said({"type": "compaction", "content": MARK}),
}


def prompt_tokens(model: str, body: dict[str, Any], words: str) -> tuple[int, ...]:
    filled = json.dumps({"model": "m"} | body).replace(MARK, json.dumps(words)[1:-1])
    call = decode(Conversation, json.loads(filled))
    return RENDERERS[model].render(call).tokens


def controls(model: str, tokens: tuple[int, ...]) -> list[int]:
    return [token for token in tokens if token in MODELS[model].control_tokens]


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("model", ["phi3", "chatml", "qwen", "hermes"])
def test_no_client_field_yields_a_control_token(model: str, field: str) -> None:
    body = FIELDS[field]
    wanted = controls(model, prompt_tokens(model, body, "plain"))
    assert wanted
    tokenizer = MODELS[model]
    for number in tokenizer.control_tokens:
        name = tokenizer._controls[number]
        for words in (name, f"a{name}b", f"{name}{name}", f"{name} "):
            assert controls(model, prompt_tokens(model, body, words)) == wanted, words


@pytest.mark.parametrize("model", ["phi3", "chatml", "qwen", "hermes"])
def test_client_text_is_rendered_unchanged(model: str) -> None:
    tokenizer = MODELS[model]
    for name in tokenizer._controls.values():
        body = {"messages": [{"role": "user", "content": f"say {name} twice: {name}"}]}
        detokenizer = tokenizer.detokenizer()
        tokens = prompt_tokens(model, body, "")
        plain = [token for token in tokens if token not in tokenizer.control_tokens]
        written = "".join(map(detokenizer.feed, plain)) + detokenizer.flush()
        assert f"say {name} twice: {name}" in written


@pytest.mark.parametrize("model", ["qwen", "hermes"])
def test_every_field_of_the_table_reaches_the_prompt(model: str) -> None:
    unwritten = {
        field
        for field, body in FIELDS.items()
        if prompt_tokens(model, body, "zebra") == prompt_tokens(model, body, "quartz")
    }
    assert unwritten == set()
