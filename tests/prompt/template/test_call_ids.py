"""Ids that a family writes into its calls."""

from pensieve.api.messages.content_blocks import ToolUseBlock
from pensieve.prompt.template.renderer import CallIds
from tests.dialects.cases import DIALECTS


def use(name: str, use_id: str) -> ToolUseBlock:
    return ToolUseBlock.model_validate(
        {"type": "tool_use", "id": use_id, "name": name, "input": {}}
    )


def test_call_ids_are_read_in_order_and_cleared() -> None:
    ids = CallIds(DIALECTS["mistral-with-id"])
    text = "x[TOOL_CALLS]a[CALL_ID]aaaaaaaa1[ARGS]{}[TOOL_CALLS]a[CALL_ID]aaaaaaaa2[ARGS]{}"
    ids.read([use("a", "one"), use("b", "none"), use("a", "two")], text)
    assert [ids.get(name) for name in ("one", "none", "two")] == ["aaaaaaaa1", None, "aaaaaaaa2"]
    ids.clear()
    assert ids.get("one") is None


def test_call_id_may_consist_of_name_and_index() -> None:
    ids = CallIds(DIALECTS["kimi"])
    ids.read([use("a", "one")], "<|tool_call_begin|>functions.a:3<|tool_call_argument_begin|>{}")
    assert ids.get("one") == "functions.a:3"


def test_call_id_may_be_a_key_of_the_calls_object() -> None:
    ids = CallIds(DIALECTS["mistral-list-with-id"])
    calls = [
        '{"name": "a", "arguments": {"id": "x"}, "id": "VvvODy9mT"}',
        '{"name": "a", "arguments": {}, "id": 5}',
        '{"name": "a", "arguments": {"id": "x"',
    ]
    uses = [use("a", name) for name in ("one", "number", "cut")]
    ids.read(uses, f"[TOOL_CALLS][{', '.join(calls)}")
    assert [ids.get(one.id) for one in uses] == ["VvvODy9mT", None, None]


def test_family_without_ids_reads_none() -> None:
    ids = CallIds(DIALECTS["hermes"])
    ids.read([use("a", "one")], '{"name": "a", "arguments": ')
    assert not ids.is_used
    assert ids.get("one") is None
