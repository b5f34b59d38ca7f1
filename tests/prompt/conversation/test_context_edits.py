"""`context_management`: what is cleared, when, and what is reported."""

from typing import Any

import pytest

from pensieve.api.messages.message import ClearedToolUses
from pensieve.api.messages.request import Conversation, decode
from pensieve.prompt.render import Prompt, PromptRenderer
from tests.support.fakes import ByteTokenizer

TOKENIZER = ByteTokenizer()


def conversation(*edits: dict[str, Any], calls: int = 4, **fields: Any) -> Conversation:
    """A conversation with calls of tools t0, t1…, each with a long result."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "go"}]
    for n in range(calls):
        use = {"type": "tool_use", "id": f"id{n}", "name": f"t{n}", "input": {"path": f"file{n}"}}
        result = {"type": "tool_result", "tool_use_id": f"id{n}", "content": f"result{n} " * 50}
        result["is_error"] = n == 0
        messages += [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    body = {"model": "m", "messages": messages, "context_management": {"edits": edits}, **fields}
    return decode(Conversation, body)


def clear(**fields: Any) -> dict[str, Any]:
    keep = {"type": "tool_uses", "value": 1}
    trigger = {"type": "input_tokens", "value": 100}
    return {"type": "clear_tool_uses_20250919", "keep": keep, "trigger": trigger, **fields}


def rendered(*edits: dict[str, Any], **fields: Any) -> tuple[Prompt, str]:
    prompt = PromptRenderer(TOKENIZER).render(conversation(*edits, **fields))
    return prompt, TOKENIZER.decode(prompt.tokens)


def test_clear_tool_uses_clears_old_results_and_keeps_the_last() -> None:
    prompt, text = rendered(clear())
    plain, plain_text = rendered()
    assert [f"result{n}" in text for n in range(4)] == [False, False, False, True]
    assert text.count("[old tool result removed]") == 3
    assert "Error" not in text
    assert "Error" in plain_text
    assert [f"file{n}" in text for n in range(4)] == [True] * 4
    assert prompt.edits is not None
    assert prompt.edits.applied_edits == (
        ClearedToolUses(
            cleared_tool_uses=3, cleared_input_tokens=len(plain.tokens) - len(prompt.tokens)
        ),
    )
    assert prompt.original_tokens == len(plain.tokens)


@pytest.mark.parametrize(
    "edit",
    [
        clear(trigger={"type": "input_tokens", "value": 100_000}),
        clear(trigger={"type": "tool_uses", "value": 4}),
        clear(keep={"type": "tool_uses", "value": 4}),
        clear(clear_at_least={"type": "input_tokens", "value": 10_000}),
        clear(exclude_tools=["t0", "t1", "t2"]),
        {"type": "clear_tool_uses_20250919"},
        {"type": "clear_thinking_20251015", "keep": "all"},
        {"type": "clear_thinking_20251015", "keep": {"type": "thinking_turns", "value": 1}},
        {"type": "compact_20260112", "trigger": {"type": "input_tokens", "value": 1}},
        {"type": "from_the_future"},
    ],
)
def test_edit_without_effect_is_reported_as_not_applied(edit: dict[str, Any]) -> None:
    prompt, _ = rendered(edit)
    plain, _ = rendered()
    assert prompt.tokens == plain.tokens
    assert prompt.edits is not None
    assert prompt.edits.applied_edits == ()


def test_clear_tool_uses_excludes_tools_and_clears_inputs() -> None:
    _, text = rendered(clear(exclude_tools=["t1"], clear_tool_inputs=True))
    assert [f"result{n}" in text for n in range(4)] == [False, True, False, True]
    assert [f"file{n}" in text for n in range(4)] == [False, True, False, True]
    _, text = rendered(clear(clear_tool_inputs=["t2"]))
    assert [f"file{n}" in text for n in range(4)] == [True, True, False, True]


def test_number_of_tool_uses_triggers_clearing() -> None:
    _, text = rendered(clear(trigger={"type": "tool_uses", "value": 3}))
    assert "result0" not in text


def test_edits_are_applied_in_order() -> None:
    min_tokens = {"type": "input_tokens", "value": 100_000}
    prompt, text = rendered(
        clear(clear_at_least=min_tokens), clear(keep={"type": "tool_uses", "value": 2}), clear()
    )
    assert "result2" not in text
    assert prompt.edits is not None
    assert len(prompt.edits.applied_edits) == 2


def test_prompt_reports_no_edits_without_context_management() -> None:
    call = conversation().model_copy(update={"context_management": None})
    assert PromptRenderer(TOKENIZER).render(call).edits is None
