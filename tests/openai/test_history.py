"""Chat messages become turns in which every call has exactly one result."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.api.messages.content_blocks import DocumentBlock, ToolResultBlock, TranslatedPdf
from pensieve.api.messages.request import ApiVersion, Conversation
from pensieve.errors import InvalidRequestError
from pensieve.openai.chat_request import ChatMessage
from pensieve.openai.history import turns_of
from pensieve.openai.turns import NO_RESULT
from pensieve.prompt.conversation.validation import validate

HI = {"role": "user", "content": "hi"}


def call(call_id: str, arguments: object = '{"a": 1}', name: str = "f") -> dict[str, object]:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def calls(*ids: str, **fields: object) -> dict[str, object]:
    return {"role": "assistant", "tool_calls": [call(call_id) for call_id in ids], **fields}


def result(call_id: str, content: object = "done") -> dict[str, object]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def turns(*messages: dict[str, object]) -> list[tuple[str, list[object]]]:
    """Return each turn's role and what its blocks say."""
    found = turns_of([ChatMessage.model_validate(message) for message in messages], "m")
    return [(turn.role, [_said(block) for block in turn.content]) for turn in found]


def _said(block: object) -> object:
    match block.type:
        case "text":
            return block.text
        case "thinking":
            return f"({block.thinking})"
        case "tool_use":
            return (block.id, block.name, block.input)
        case _:
            return (block.tool_use_id, "".join(part.text for part in block.content))


USE = ("a", "f", {"a": 1})


def test_roles_and_texts_are_kept_in_order() -> None:
    assert turns(
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"text": "two"}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"role": "system", "content": "go on"},
        HI,
    ) == [
        ("system", ["be brief"]),
        ("user", ["one", "two"]),
        ("assistant", ["no"]),
        ("system", ["go on"]),
        ("user", ["hi"]),
    ]


@pytest.mark.parametrize("content", [{"content": None}, {"content": ""}, {}, {"content": []}])
def test_message_without_content_is_no_turn(content: dict[str, object]) -> None:
    assert turns({"role": "user", **content}, HI) == [("user", ["hi"])]
    assert turns(HI, {"role": "assistant", **content}) == [("user", ["hi"])]


@pytest.mark.parametrize("message", [{"role": "user"}, {"role": "tool", "tool_call_id": "x"}])
def test_conversation_without_content_is_refused(message: dict[str, object]) -> None:
    with pytest.raises(InvalidRequestError, match="messages: at least one message"):
        turns(message)


def test_system_message_alone_is_asked_as_the_user() -> None:
    assert turns({"role": "system", "content": "a"}, {"role": "system", "content": "b"}) == [
        ("system", ["a"]),
        ("user", ["b"]),
    ]


def test_calls_and_results_are_matched_in_any_order() -> None:
    assert turns(HI, calls("a", "b", content="x"), result("b", "2"), result("a", "1"), HI) == [
        ("user", ["hi"]),
        ("assistant", ["x", USE, ("b", "f", {"a": 1})]),
        ("user", [("b", "2")]),
        ("user", [("a", "1")]),
        ("user", ["hi"]),
    ]


def test_calls_in_several_messages_have_their_results() -> None:
    assert turns(HI, calls("a"), calls("b"), result("a"), result("b"))[1:] == [
        ("assistant", [USE]),
        ("assistant", [("b", "f", {"a": 1})]),
        ("user", [("a", "done")]),
        ("user", [("b", "done")]),
    ]


@pytest.mark.parametrize("after", [[HI], [], [{"role": "assistant", "content": "x"}]])
def test_missing_result_is_supplied(
    after: list[dict[str, object]], caplog: pytest.LogCaptureFixture
) -> None:
    made = turns(HI, calls("a", "b"), result("a"), *after)
    assert made[2:4] == [("user", [("a", "done")]), ("user", [("b", NO_RESULT)])]
    assert len(made) == 4 + len(after)
    assert "1 tool calls have no result" in caplog.text


def test_only_a_supplied_result_is_an_error() -> None:
    messages = [HI, calls("a", "b"), result("a")]
    made = turns_of([ChatMessage.model_validate(message) for message in messages], "m")
    results = [block for turn in made[2:] for block in turn.content]
    assert [(block.tool_use_id, block.is_error) for block in results] == [("a", False), ("b", True)]


def test_result_without_its_call_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    assert turns(HI, result("x"), calls("a"), result("a"), result("a")) == [
        ("user", ["hi"]),
        ("assistant", [USE]),
        ("user", [("a", "done")]),
    ]
    assert [record.getMessage() for record in caplog.records] == [
        "ignoring 2 results without a call"
    ]


def test_missing_results_of_a_session_are_one_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    turns(HI, calls("a", "b"), HI, calls("a"), HI)
    assert [record.getMessage() for record in caplog.records] == [
        "3 tool calls have no result, telling the model so"
    ]


def test_image_in_a_result_is_a_note() -> None:
    parts = [{"type": "text", "text": "seen"}, {"type": "image_url", "image_url": {"url": "x"}}]
    answered = {"role": "tool", "tool_call_id": "a", "content": parts}
    messages = [HI, calls("a"), answered]
    made = turns_of([ChatMessage.model_validate(message) for message in messages], "m")
    (block,) = made[-1].content
    assert isinstance(block, ToolResultBlock)
    assert [text.text for text in block.content] == ["seen", "[image that this model cannot read]"]


def test_id_that_is_used_again_is_another_call() -> None:
    made = turns(HI, calls("a"), result("a", "1"), calls("a"), result("a", "2"))
    first, second = (blocks[0][0] for role, blocks in made if role == "assistant")
    assert first == "a" != second
    assert [blocks[0] for _, blocks in made[2::2]] == [(first, "1"), (second, "2")]


def test_call_and_result_without_ids_are_matched_in_order() -> None:
    function_call = {"name": "f", "arguments": "{}"}
    made = turns(
        HI,
        {"role": "assistant", "content": None, "function_call": function_call},
        {"role": "function", "name": "f", "content": "done"},
    )
    ((use_id, name, arguments),) = made[1][1]
    assert (name, arguments) == ("f", {})
    assert made[2] == ("user", [(use_id, "done")])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"a": [1]}', {"a": [1]}),
        ({"a": 1}, {"a": 1}),
        ("", {}),
        (None, {}),
        ('{"a": "cut', {"arguments": '{"a": "cut'}),
        ("[1]", {"arguments": [1]}),
        ('{"a": 1, "a": 2}', {"arguments": '{"a": 1, "a": 2}'}),
        ('{"a":' * 70 + "1" + "}" * 70, {"arguments": '{"a":' * 70 + "1" + "}" * 70}),
    ],
)
def test_arguments_become_an_object(arguments: object, expected: dict[str, object]) -> None:
    message = {"role": "assistant", "tool_calls": [call("a", arguments)]}
    assert turns(HI, message)[1] == ("assistant", [("a", "f", expected)])


def test_own_ids_become_those_of_stored_answers() -> None:
    ours = "call_01" + "x" * 22
    made = turns(HI, calls(ours, "call_01short"), result(ours), result("call_01short"))
    assert [use[0] for use in made[1][1]] == ["toolu_01" + "x" * 22, "call_01short"]


def test_custom_call_has_its_input() -> None:
    custom = {"id": "a", "type": "custom", "custom": {"name": "patch", "input": "*** Begin"}}
    unknown = {"id": "b", "type": "hosted", "hosted": {}}
    message = {"role": "assistant", "tool_calls": [custom, unknown]}
    assert turns(HI, message)[1] == ("assistant", [("a", "patch", {"input": "*** Begin"})])


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thought_precedes_text_and_calls(field: str) -> None:
    assert turns(HI, calls("a", content="x", **{field: "hm"}))[1] == (
        "assistant",
        ["(hm)", "x", USE],
    )


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ({"type": "image_url", "image_url": {"url": "http://127.0.0.1/x.png"}}, "image"),
        ({"type": "input_image", "image_url": "data:"}, "image"),
        ({"type": "image", "source": {}}, "image"),
        ({"type": "input_audio", "input_audio": {}}, "audio"),
    ],
)
def test_part_that_is_not_text_is_refused_with_its_path(part: object, kind: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        turns({"role": "user", "content": [{"type": "text", "text": "look"}, part]})
    image = "Could not process image: model 'm' does not support image input"
    assert caught.value.message == f"messages.0.content.1.type: {image.replace('image', kind)}"


def test_unknown_part_with_text_is_text() -> None:
    part = {"type": "output_text", "text": "yes"}
    assert turns(HI, {"role": "assistant", "content": [part, {"type": "odd"}]})[1] == (
        "assistant",
        ["yes"],
    )


IDS = st.sampled_from(["a", "b", "", "call_0"])
MESSAGES = st.one_of(
    st.sampled_from(["user", "assistant", "system"]).map(
        lambda role: {"role": role, "content": "x"}
    ),
    st.lists(IDS, min_size=1, max_size=3).map(lambda ids: calls(*ids)),
    IDS.map(result),
)


@given(st.lists(MESSAGES, max_size=12))
def test_any_order_of_messages_is_a_valid_conversation(messages: list[dict[str, object]]) -> None:
    made = turns_of([ChatMessage.model_validate(one) for one in [HI, *messages]], "m")
    validate(Conversation(model="m", messages=made), ApiVersion())
    texts = [block for turn in made for block in turn.content if block.type == "text"]
    assert len(texts) == 1 + sum(message.get("content") == "x" for message in messages)


def test_a_file_becomes_a_document_with_the_path_of_its_data() -> None:
    data = {"file_data": "data:application/pdf;name=a.pdf;base64,JVBERi0=", "filename": "a.pdf"}
    parts = [{"type": "text", "text": "read"}, {"type": "file", "file": data}]
    for role, is_optional in (("user", False), ("tool", True)):
        answered = {"role": role, "tool_call_id": "a", "content": parts}
        messages = [HI, calls("a"), answered]
        made = turns_of([ChatMessage.model_validate(message) for message in messages], "m")
        content = made[-1].content
        if isinstance(content[0], ToolResultBlock):
            content = content[0].content
        document = content[-1]
        assert isinstance(document, DocumentBlock)
        assert document.title == "a.pdf"
        assert document.source == TranslatedPdf(
            type="base64",
            media_type="application/pdf",
            data="JVBERi0=",
            path="messages.2.content.1.file.file_data",
            is_optional=is_optional,
        )


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            {"type": "file", "file": {"file_id": "x"}},
            "file.file_data: Could not process file: only",
        ),
        ({"type": "input_file", "file_id": "x"}, "file_data: Could not process file: only a PDF's"),
        (
            {"type": "file", "file": {"file_data": "data:text/csv;base64,YQ=="}},
            "file.file_data: Could not process file: only PDFs are read, not 'text/csv'",
        ),
    ],
)
def test_a_file_that_is_no_pdf_is_refused_and_a_note_in_a_result(
    part: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        turns({"role": "user", "content": [part]})
    assert caught.value.message.startswith(f"messages.0.content.0.{message}")
    noted = turns(HI, calls("a"), result("a", [part]))[-1]
    assert noted == ("user", [("a", "[file that this model cannot read]")])
