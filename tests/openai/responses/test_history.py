import logging

import pytest

from pensieve.api.messages.signatures import signature_of, with_text
from pensieve.errors import InvalidRequestError
from pensieve.openai.responses.history import turns_of
from pensieve.openai.responses.tools import declared_tools
from pensieve.openai.turns import NO_RESULT

TOOLS = declared_tools(
    [
        {"type": "function", "name": "clock"},
        {"type": "custom", "name": "patch"},
        {"type": "namespace", "name": "mcp__x", "tools": [{"type": "function", "name": "find"}]},
    ]
)


def turns(*items, first=0):
    return [
        (turn.role, [block.model_dump(exclude_defaults=True) for block in turn.content])
        for turn in turns_of(items, TOOLS, "tiny", first)
    ]


def text(content):
    return {"type": "text", "text": content}


def use(call_id, name, tool_input):
    return {"type": "tool_use", "id": call_id, "name": name, "input": tool_input}


def result(call_id, *texts, **fields):
    content = tuple(map(text, texts))
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, **fields}


def message(role, content):
    return {"type": "message", "role": role, "content": content}


def call(call_id, name="clock", arguments="{}", **fields):
    item = {"call_id": call_id, "name": name, "arguments": arguments}
    return {"type": "function_call", **item, **fields}


def output(call_id, content="done"):
    return {"type": "function_call_output", "call_id": call_id, "output": content}


def test_messages_become_turns_of_their_roles() -> None:
    assert turns(
        message("developer", "Be brief."),
        {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
        message("assistant", [{"type": "output_text", "text": "Hello"}]),
        message("system", None),
        message(
            "user", [{"type": "input_text", "text": "Bye"}, {"type": "refusal", "refusal": "No"}]
        ),
    ) == [
        ("system", [text("Be brief.")]),
        ("user", [text("Hi")]),
        ("assistant", [text("Hello")]),
        ("user", [text("Bye"), text("No")]),
    ]


def test_calls_and_their_outputs_become_uses_and_results() -> None:
    assert turns(
        message("user", "When?"),
        call("a", arguments='{"zone": "CET"}'),
        call("b", "find", '{"what": 1}', namespace="mcp__x"),
        {"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": "*** x"},
        output("b", [{"type": "input_text", "text": "one"}, {"type": "input_text", "text": "two"}]),
        output("a", "noon"),
        {"type": "custom_tool_call_output", "call_id": "c", "output": "ok"},
    ) == [
        ("user", [text("When?")]),
        (
            "assistant",
            [
                use("a", "clock", {"zone": "CET"}),
                use("b", "mcp__x__find", {"what": 1}),
                use("c", "patch", {"input": "*** x"}),
            ],
        ),
        ("user", [result("b", "one", "two")]),
        ("user", [result("a", "noon")]),
        ("user", [result("c", "ok")]),
    ]


def test_calls_of_openais_own_tools_become_uses() -> None:
    assert turns(
        {"type": "local_shell_call", "call_id": "a", "action": {"command": ["ls"]}},
        {"type": "local_shell_call_output", "id": "a", "output": "x"},
        {"type": "apply_patch_call", "call_id": "b", "operation": {"type": "delete_file"}},
        {"type": "apply_patch_call_output", "call_id": "b", "status": "completed"},
        {"type": "shell_call", "call_id": "c", "action": {"commands": ["ls"]}},
        {"type": "shell_call_output", "call_id": "c", "output": [{"stdout": "y"}]},
    ) == [
        ("assistant", [use("a", "local_shell", {"command": ["ls"]})]),
        ("user", [result("a", "x")]),
        ("assistant", [use("b", "apply_patch", {"type": "delete_file"})]),
        ("user", [result("b", "")]),
        ("assistant", [use("c", "shell", {"commands": ["ls"]})]),
        ("user", [result("c", '{"stdout": "y"}')]),
    ]


def test_our_call_id_becomes_the_id_under_which_its_answer_is_stored() -> None:
    name = "01" + "x" * 22
    assert turns(call(f"call_{name}"), output(f"call_{name}")) == [
        ("assistant", [use(f"toolu_{name}", "clock", {})]),
        ("user", [result(f"toolu_{name}", "done")]),
    ]


@pytest.mark.parametrize(
    ("arguments", "tool_input"),
    [
        ("", {}),
        ('{"zone": "C', {"arguments": '{"zone": "C'}),
        ("[1]", {"arguments": [1]}),
        ({"zone": "CET"}, {"zone": "CET"}),
    ],
)
def test_arguments_that_are_no_object_stay_readable(arguments, tool_input) -> None:
    assert turns(call("a", arguments=arguments), output("a"))[0] == (
        "assistant",
        [use("a", "clock", tool_input)],
    )


def test_missing_results_are_supplied_and_orphans_dropped() -> None:
    assert turns(
        call("a"),
        call("b"),
        output("b"),
        message("user", "Stop"),
        output("a", "late"),
        call("a"),
    ) == [
        ("assistant", [use("a", "clock", {}), use("b", "clock", {})]),
        ("user", [result("b", "done")]),
        ("user", [result("a", NO_RESULT, is_error=True)]),
        ("user", [text("Stop")]),
        ("assistant", [use("a.2", "clock", {})]),
        ("user", [result("a.2", NO_RESULT, is_error=True)]),
    ]


@pytest.mark.parametrize("following", [message("assistant", "Go on"), call("c")])
def test_an_answer_after_a_result_begins_when_all_results_are_there(following) -> None:
    made = turns(call("a"), call("b"), output("b"), following)
    assert made[1:3] == [
        ("user", [result("b", "done")]),
        ("user", [result("a", NO_RESULT, is_error=True)]),
    ]
    assert made[3][0] == "assistant"


def test_a_sealed_thought_has_its_answers_signature() -> None:
    signature = signature_of("", carries_text=False)
    sealed = with_text(signature, "Hm.")
    assert turns({"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": sealed}) == [
        ("assistant", [{"type": "thinking", "thinking": "Hm.", "signature": signature}])
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"summary": [{"type": "summary_text", "text": "Hm."}]},
        {"summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
    ],
)
def test_an_open_thought_is_its_text(fields) -> None:
    assert turns({"type": "reasoning", "id": "rs", "encrypted_content": None, **fields}) == [
        ("assistant", [{"type": "thinking", "thinking": "Hm."}])
    ]


def test_an_empty_thought_is_dropped() -> None:
    assert turns({"type": "reasoning", "id": "rs", "summary": []}) == []


def test_another_servers_sealed_thought_keeps_its_summary() -> None:
    foreign = {"encrypted_content": "gAAAA", "summary": [{"type": "summary_text", "text": "Hm."}]}
    assert turns({"type": "reasoning", "id": "rs", **foreign}) == [
        ("assistant", [{"type": "thinking", "thinking": "Hm.", "signature": "gAAAA"}])
    ]


def test_added_tools_are_added_in_their_place() -> None:
    tool = {"type": "function", "name": "late", "description": "Late.", "parameters": {"a": 1}}
    added = {"type": "additional_tools", "role": "developer", "tools": [tool]}
    definition = {"name": "late", "description": "Late.", "input_schema": {"a": 1}}
    assert turns(message("user", "Hi"), added)[1] == (
        "system",
        [{"type": "tool_addition", "tool": definition}],
    )


def test_unknown_items_are_logged_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pensieve.openai")
    found = turns(
        {"type": "web_search_call", "id": "ws", "status": "completed", "action": 3},
        {"type": "brand_new", "content": {"odd": None}},
        message("user", "Hi"),
    )
    assert found == [("user", [text("Hi")])]
    assert "ignoring 2 items that are unknown here, from input.0 on" in caplog.text
    assert "brand_new" not in caplog.text


def test_a_conversation_of_instructions_alone_ends_with_a_user_turn() -> None:
    assert turns(message("system", "a"), message("developer", "b")) == [
        ("system", [text("a")]),
        ("user", [text("b")]),
    ]


def test_an_image_in_a_result_is_told_and_in_a_message_refused() -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,"}
    assert turns(call("a"), output("a", [image]))[1] == (
        "user",
        [result("a", "[image that this model cannot read]")],
    )
    with pytest.raises(InvalidRequestError, match=r"^input\.0\.content\.1\.type: Could not"):
        turns(message("user", "earlier"), message("user", [{"type": "text"}, image]), first=1)


@pytest.mark.parametrize(
    ("item", "error"),
    [
        ({"role": "robot", "content": ""}, "input.0.role: Input should be 'user'"),
        ({"type": "function_call", "name": "clock"}, "input.0.call_id: Field required"),
        (message("user", [{"type": "input_text", "text": 3}]), "input.0.content.0.text: Input"),
    ],
)
def test_an_invalid_item_is_refused_by_its_path(item, error) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        turns(item)
    assert refusal.value.message.startswith(error)
