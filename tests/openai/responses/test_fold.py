import json
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from pensieve.api.messages.events import (
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    InputJsonDelta,
    MessageDelta,
    MessageStart,
    MessageStop,
    ScoredTextDelta,
    SignatureDelta,
    StopDelta,
    TextDelta,
    ThinkingDelta,
)
from pensieve.api.messages.logprobs import TextLogprob
from pensieve.api.messages.message import (
    DeltaUsage,
    Message,
    OutputTokensDetails,
    TextContent,
    ThinkingContent,
    ToolUseContent,
    Usage,
)
from pensieve.api.messages.signatures import with_text
from pensieve.openai.responses.conversation import translated
from pensieve.openai.responses.echo import response_to
from pensieve.openai.responses.events import ResponseStreamEvent
from pensieve.openai.responses.fold import FoldOptions, ResponseFold
from pensieve.openai.responses.history import turns_of
from pensieve.openai.responses.request import ResponsesRequest
from pensieve.openai.responses.response import ResponseError
from pensieve.openai.responses.tools import declared_tools

TOOLS = [
    {"type": "function", "name": "clock"},
    {"type": "custom", "name": "patch"},
    {"type": "namespace", "name": "mcp__x", "tools": [{"type": "function", "name": "find"}]},
]
START = MessageStart(
    message=Message(id="msg_01a", model="tiny", usage=Usage(input_tokens=5, output_tokens=0))
)
SIGNATURE = "pensieve1.abc"


def fold_of(**fields):
    request = ResponsesRequest.model_validate({"model": "tiny", "input": "Hi", **fields})
    return ResponseFold(
        FoldOptions(
            response_to(request, created_at=7),
            lambda: 9,
            translated(request).tools,
            has_summary=request.has_summary,
            seals_thoughts=request.seals_thoughts,
        )
    )


def end(reason="end_turn"):
    usage = DeltaUsage(
        input_tokens=1,
        cache_creation_input_tokens=1,
        cache_read_input_tokens=3,
        output_tokens=4,
        output_tokens_details=OutputTokensDetails(thinking_tokens=1),
    )
    return [MessageDelta(delta=StopDelta(stop_reason=reason), usage=usage), MessageStop()]


def block(index, content, *deltas):
    return [
        ContentBlockStart(index=index, content_block=content),
        *(ContentBlockDelta(index=index, delta=delta) for delta in deltas),
        ContentBlockStop(index=index),
    ]


def text(index, *pieces):
    return block(index, TextContent(text=""), *(TextDelta(text=piece) for piece in pieces))


def thought(index, *pieces):
    deltas = (ThinkingDelta(thinking=piece) for piece in pieces)
    signature = SignatureDelta(signature=SIGNATURE)
    return block(index, ThinkingContent(thinking="", signature=""), *deltas, signature)


def use(index, name, *pieces):
    deltas = (InputJsonDelta(partial_json=piece) for piece in pieces)
    return block(index, ToolUseContent(id=f"toolu_0{index}", name=name, input={}), *deltas)


def stream(*events, **fields):
    return [event.model_dump(mode="json") for event in fold_of(**fields).feed([START, *events])]


def kinds(events):
    """Return the types of events, without the prefix that they share."""
    return [event["type"].removeprefix("response.") for event in events]


def without(event, *names):
    return {name: value for name, value in event.items() if name not in names}


# Literals.


def test_a_text_has_the_logprobs_of_its_tokens() -> None:
    tokens = [TextLogprob(token=char, logprob=-0.5, bytes=(ord(char),)) for char in "Hi"]
    deltas = [ScoredTextDelta(text=token.token, logprobs=(token,)) for token in tokens]
    events = stream(*block(0, TextContent(text=""), *deltas), *end())
    expected = [
        {"token": char, "logprob": -0.5, "bytes": [ord(char)], "top_logprobs": []} for char in "Hi"
    ]
    found = {event["type"]: event for event in events}
    pieces = [event for event in events if event["type"] == "response.output_text.delta"]
    assert [piece["logprobs"] for piece in pieces] == [[one] for one in expected]
    assert found["response.output_text.done"]["logprobs"] == expected
    assert found["response.content_part.done"]["part"]["logprobs"] == expected
    assert found["response.output_item.done"]["item"]["content"][0]["logprobs"] == expected
    assert events[-1]["response"]["output"][0]["content"][0]["logprobs"] == expected


def test_a_text_is_a_message_with_one_part() -> None:
    events = stream(*text(0, "Hel", "lo"), *end())
    part = {"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}
    item = {"id": "msg_01a_0", "type": "message", "role": "assistant"}
    place = {"item_id": "msg_01a_0", "output_index": 0}
    in_part = place | {"content_index": 0}
    assert kinds(events)[:2] == ["created", "in_progress"]
    assert [without(event, "sequence_number") for event in events[2:-1]] == [
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": item | {"status": "in_progress", "content": []},
        },
        {"type": "response.content_part.added", **in_part, "part": part | {"text": ""}},
        {"type": "response.output_text.delta", **in_part, "delta": "Hel", "logprobs": []},
        {"type": "response.output_text.delta", **in_part, "delta": "lo", "logprobs": []},
        {"type": "response.output_text.done", **in_part, "text": "Hello", "logprobs": []},
        {"type": "response.content_part.done", **in_part, "part": part},
        {
            "type": "response.output_item.done",
            "output_index": 0,
            "item": item | {"status": "completed", "content": [part]},
        },
    ]
    last = events[-1]
    assert last["type"] == "response.completed"
    assert last["response"]["output"] == [events[-2]["item"]]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


def test_a_response_begins_empty_and_ends_with_usage() -> None:
    first, second, *_, last = (event["response"] for event in stream(*end()))
    assert first == second
    assert (first["id"], first["model"], first["status"]) == ("resp_01a", "tiny", "in_progress")
    assert (first["output"], first["usage"], first["completed_at"]) == ([], None, None)
    assert (last["id"], last["status"], last["completed_at"]) == ("resp_01a", "completed", 9)
    assert last["usage"] == {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 9,
    }


def test_a_thought_is_a_reasoning_item() -> None:
    events = stream(*thought(0, "Hm", "."), *text(1, "Yes"), *end())
    assert kinds(events)[2:10] == [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
    ]
    assert events[8]["item"] == {
        "id": "rs_01a_0",
        "type": "reasoning",
        "status": "completed",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "Hm."}],
    }
    assert events[9]["item"]["id"] == "msg_01a_1"
    assert events[9]["output_index"] == 1


def test_a_thought_is_a_summary_for_a_client_that_reads_summaries() -> None:
    events = stream(*thought(0, "Hm", "."), *end(), reasoning={"summary": "auto"})
    assert kinds(events)[2:-1] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
    ]
    assert events[3] == {
        "type": "response.reasoning_summary_part.added",
        "sequence_number": 3,
        "item_id": "rs_01a_0",
        "output_index": 0,
        "summary_index": 0,
        "part": {"type": "summary_text", "text": ""},
    }
    assert events[-2]["item"] == {
        "id": "rs_01a_0",
        "type": "reasoning",
        "status": "completed",
        "summary": [{"type": "summary_text", "text": "Hm."}],
    }


def test_a_sealed_thought_comes_back_with_its_answers_signature() -> None:
    include = ["reasoning.encrypted_content"]
    item = stream(*thought(0, "Hm."), *end(), include=include)[-2]["item"]
    assert item["encrypted_content"] == with_text(SIGNATURE, "Hm.")
    (turn,) = turns_of([item | {"summary": []}], declared_tools([]), "tiny")
    assert (turn.content[0].thinking, turn.content[0].signature) == ("Hm.", SIGNATURE)


def test_a_stored_thought_has_its_answers_signature() -> None:
    fold = fold_of()
    fold.feed([START, *thought(0, "Hm."), *text(1, "Yes"), *end()])
    first, second = fold.stored_items
    assert first.encrypted_content == SIGNATURE
    assert second == fold.response.output[1]
    assert fold.response.output[0].encrypted_content is None


def test_calls_have_their_clients_names() -> None:
    events = stream(
        *use(0, "clock", '{"zone"', ': "CET"}'),
        *use(1, "mcp__x__find", "{}"),
        *use(2, "patch", '{"inp', 'ut": "a\\nb"}'),
        *end("tool_use"),
        tools=TOOLS,
    )
    first, second, third = events[-1]["response"]["output"]
    assert first == {
        "id": "fc_01a_0",
        "type": "function_call",
        "status": "completed",
        "call_id": "call_00",
        "name": "clock",
        "arguments": '{"zone": "CET"}',
    }
    assert (second["name"], second["namespace"], second["arguments"]) == ("find", "mcp__x", "{}")
    assert third == {
        "id": "ctc_01a_2",
        "type": "custom_tool_call",
        "status": "completed",
        "call_id": "call_02",
        "name": "patch",
        "input": "a\nb",
    }
    assert kinds(events)[2:-1] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.done",
        "output_item.done",
    ]


@pytest.mark.parametrize(
    ("generated", "sent"),
    [
        ((), ""),
        (('{"in',), ""),
        (('{"input": "a\\',), "a"),
        (('{"input": "\\ud83d\\ude00"}',), "😀"),
        (('{"other": 1}',), '{"other": 1}'),
        (("[1]",), "[1]"),
        (('{"input": 3}',), '{"input": 3}'),
        (("no json",), "no json"),
    ],
)
def test_the_input_of_a_custom_tool_is_what_was_written_of_it(generated, sent) -> None:
    events = stream(*use(0, "patch", *generated), *end("tool_use"), tools=TOOLS)
    assert events[-1]["response"]["output"][0]["input"] == sent


@pytest.mark.parametrize("reason", ["max_tokens", "model_context_window_exceeded"])
def test_a_cut_answer_is_incomplete_and_so_is_its_last_item(reason) -> None:
    cut = use(1, "clock", '{"zo')
    events = stream(*text(0, "One"), *cut, *end(reason), tools=TOOLS, max_output_tokens=4)
    response = events[-1]["response"]
    assert events[-1]["type"] == "response.incomplete"
    assert (response["status"], response["completed_at"]) == ("incomplete", None)
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert [item["status"] for item in response["output"]] == ["completed", "incomplete"]
    assert response["output"][1]["arguments"] == '{"zo'


@pytest.mark.parametrize("limit", [None, 5])
@pytest.mark.parametrize(
    ("blocks", "reason"),
    [
        (use(1, "clock", '{"zo'), "model_context_window_exceeded"),
        (use(1, "clock", '{"zo'), "max_tokens"),
        ([*use(1, "clock", '{"zo'), *use(2, "clock", "{}")], "max_tokens"),
        ([*use(1, "clock", '{"zo'), *text(2, "Hm")], "max_tokens"),
    ],
)
def test_a_call_that_was_broken_off_is_sent_for_the_client_to_report(blocks, reason, limit) -> None:
    events = stream(*blocks, *end(reason), tools=TOOLS, max_output_tokens=limit)
    response = events[-1]["response"]
    assert (response["status"], response["completed_at"]) == ("completed", 9)
    statuses = [item["status"] for item in response["output"]]
    assert statuses == ["incomplete", *["completed"] * (len(statuses) - 1)]
    assert response["output"][0]["arguments"] == '{"zo'


@pytest.mark.parametrize(
    ("blocks", "reason"),
    [
        (text(1, "On"), "model_context_window_exceeded"),
        (thought(1, "Hm"), "model_context_window_exceeded"),
        ([*use(1, "clock", '{"zo'), *text(2, "Hm")], "model_context_window_exceeded"),
        (use(1, "patch", '{"input": "*** Beg'), "model_context_window_exceeded"),
        (use(1, "patch", '{"input": "*** Beg'), "max_tokens"),
        ([*use(1, "patch", '{"input": "x'), *use(2, "clock", '{"zo')], "max_tokens"),
    ],
)
def test_a_cut_that_does_not_show_is_an_incomplete_response(blocks, reason) -> None:
    response = stream(*blocks, *end(reason), tools=TOOLS)[-1]["response"]
    assert response["status"] == "incomplete"
    assert response["output"][-1]["status"] == "incomplete"


def test_a_failed_response_has_its_finished_items() -> None:
    fold = fold_of()
    begun = fold.feed([START, *text(0, "One"), *thought(1, "Hm")[:2]])
    event = fold.failed(ResponseError(code="server_error", message="The engine died."))
    assert event.sequence_number == len(begun)
    assert event.type == "response.failed"
    assert event.response.status == "failed"
    assert event.response.error.message == "The engine died."
    assert [item.id for item in event.response.output] == ["msg_01a_0"]


def test_a_silent_stream_repeats_that_the_response_is_in_progress() -> None:
    fold = fold_of()
    begun = fold.feed([START])
    again = fold.in_progress()
    assert again.model_dump() == begun[-1].model_dump() | {"sequence_number": 2}
    assert [event.sequence_number for event in fold.feed(text(0, "Hi"))] == [3, 4, 5]


def test_a_fold_ends_with_its_response() -> None:
    fold = fold_of()
    fold.feed([START, *text(0, "Hi")])
    assert not fold.is_ended
    fold.feed(end())
    assert fold.is_ended


# Laws.

PIECES = st.lists(st.text(max_size=5), max_size=4)
BLOCKS = st.lists(
    st.one_of(
        st.tuples(st.just(text), PIECES),
        st.tuples(st.just(thought), PIECES),
        st.tuples(
            st.sampled_from(
                [lambda at, *p: use(at, "clock", *p), lambda at, *p: use(at, "patch", *p)]
            ),
            st.text(max_size=6).map(lambda value: list(json.dumps({"input": value}))),
        ),
    ),
    max_size=4,
)
REASONS = st.sampled_from(["end_turn", "tool_use", "max_tokens", "stop_sequence"])
OPTIONS = st.sampled_from(
    [{}, {"reasoning": {"summary": "auto"}}, {"include": ["reasoning.encrypted_content"]}]
)
EVENT = TypeAdapter(ResponseStreamEvent)


def answer_of(blocks, reason):
    return [START, *(e for at, (make, p) in enumerate(blocks) for e in make(at, *p)), *end(reason)]


def joined(events):
    """Return the events with adjacent deltas joined and without their numbers."""
    found = []
    for is_delta, group in groupby(events, lambda event: "delta" in event):
        bare = [without(event, "sequence_number") for event in group]
        if is_delta:
            bare = [bare[0] | {"delta": "".join(event["delta"] for event in bare)}]
        found += [event for event in bare if event.get("delta") != ""]
    return found


@given(BLOCKS, REASONS, OPTIONS)
def test_the_stream_of_any_cut_joins_to_that_of_whole_texts(blocks, reason, options) -> None:
    whole = [(make, ["".join(pieces)] if pieces else []) for make, pieces in blocks]
    streams = [
        [
            event.model_dump(mode="json")
            for event in fold_of(tools=TOOLS, **options).feed(answer_of(each, reason))
        ]
        for each in (blocks, whole)
    ]
    assert joined(streams[0]) == joined(streams[1])


@given(BLOCKS, REASONS, OPTIONS)
def test_the_whole_response_is_the_fold_of_its_stream(blocks, reason, options) -> None:
    fold = fold_of(tools=TOOLS, **options)
    events = [event.model_dump(mode="json") for event in fold.feed(answer_of(blocks, reason))]
    assert events[-1]["response"] == fold.response.model_dump(mode="json")
    assert events[-1]["response"]["output"] == [
        event["item"] for event in events if event["type"] == "response.output_item.done"
    ]


@given(BLOCKS, REASONS, OPTIONS)
def test_every_stream_follows_the_grammar(blocks, reason, options) -> None:
    events = [
        event.model_dump(mode="json")
        for event in fold_of(tools=TOOLS, **options).feed(answer_of(blocks, reason))
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert kinds(events)[:2] == ["created", "in_progress"]
    assert kinds(events)[-1] in {"completed", "incomplete"}
    items = events[2:-1]
    assert [event["output_index"] for event in items] == sorted(
        event["output_index"] for event in items
    )
    for index, group in groupby(items, lambda event: event["output_index"]):
        of_item = list(group)
        assert (kinds(of_item)[0], kinds(of_item)[-1]) == ("output_item.added", "output_item.done")
        opened, part = of_item[0]["item"], of_item[1].get("part", {"text": ""})
        assert (opened["status"], part["text"]) == ("in_progress", "")
        assert not any(opened.get(name) for name in ("content", "arguments", "input"))
        ids = {event.get("item_id") or event["item"]["id"] for event in of_item}
        assert len(ids) == 1, index
        deltas = "".join(event.get("delta", "") for event in of_item)
        (done,) = (
            event
            for event in of_item
            if event["type"].endswith(("_text.done", "arguments.done", "input.done"))
        )
        assert deltas == done.get("text", done.get("arguments", done.get("input")))
    assert [EVENT.validate_python(event).model_dump(mode="json") for event in events] == events
