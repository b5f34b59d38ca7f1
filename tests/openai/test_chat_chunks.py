"""Message events become chunks, whose sum is the completion, however the events cut the text."""

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from pensieve.api.messages.events import (
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    InputJsonDelta,
    MessageDelta,
    MessageEvent,
    MessageStart,
    MessageStop,
    ScoredTextDelta,
    SignatureDelta,
    StopDelta,
    TextDelta,
    ThinkingDelta,
)
from pensieve.api.messages.logprobs import TextLogprob, TokenLogprob
from pensieve.api.messages.message import (
    DeltaUsage,
    Message,
    OutputTokensDetails,
    StopReason,
    TextContent,
    ThinkingContent,
    ToolUseContent,
    Usage,
)
from pensieve.openai.chat_chunks import ChatAnswerOptions, ChatFold

# A block's kind and the pieces of its content; a tool's name as its kind.
Block = tuple[str, Sequence[str]]
USAGE = DeltaUsage(
    input_tokens=5,
    output_tokens=7,
    cache_creation_input_tokens=2,
    cache_read_input_tokens=3,
    output_tokens_details=OutputTokensDetails(thinking_tokens=4),
)
ALL = ChatAnswerOptions(created=9, custom_tools=frozenset({"patch"}), includes_usage=True)


def events_of(blocks: Iterable[Block], stop: StopReason = "end_turn") -> list[MessageEvent]:
    usage = Usage(input_tokens=10, output_tokens=0)
    events: list[MessageEvent] = [
        MessageStart(message=Message(id="msg_01x", model="m", usage=usage))
    ]
    for index, (kind, pieces) in enumerate(blocks):
        match kind:
            case "text":
                opened, delta = TextContent(text=""), lambda piece: TextDelta(text=piece)
            case "thinking":
                opened = ThinkingContent(thinking="", signature="")
                delta = lambda piece: ThinkingDelta(thinking=piece)  # noqa: E731
            case _:
                opened = ToolUseContent(id=f"toolu_{index}", name=kind, input={})
                delta = lambda piece: InputJsonDelta(partial_json=piece)  # noqa: E731
        events.append(ContentBlockStart(index=index, content_block=opened))
        events += [ContentBlockDelta(index=index, delta=delta(piece)) for piece in pieces]
        if kind == "thinking":
            events.append(ContentBlockDelta(index=index, delta=SignatureDelta(signature="s")))
        events.append(ContentBlockStop(index=index))
    end = MessageDelta(delta=StopDelta(stop_reason=stop), usage=USAGE)
    return [*events, end, MessageStop()]


def scored_text(pieces: Sequence[tuple[str, Sequence[bytes]]]) -> list[MessageEvent]:
    """Return the events of an answer with one text: pieces, and their tokens."""
    top = (TokenLogprob(token="x", logprob=-0.25, bytes=(120,)),)
    return [
        event.model_copy(
            update={
                "delta": ScoredTextDelta(
                    text=event.delta.text,
                    logprobs=tuple(
                        TextLogprob(
                            token=token.decode("utf-8", "backslashreplace"),
                            logprob=-0.5,
                            bytes=tuple(token),
                            top_logprobs=top,
                        )
                        for token in dict(pieces)[event.delta.text]
                    ),
                )
            }
        )
        if isinstance(event, ContentBlockDelta)
        else event
        for event in events_of([("text", [text for text, _ in pieces])])
    ]


def fold(
    *blocks: Block, stop: StopReason = "end_turn", options: ChatAnswerOptions = ALL
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the chunks and the completion."""
    answer = ChatFold(options)
    chunks = answer.feed(events_of(blocks, stop))
    return [one.model_dump() for one in chunks], answer.completion.model_dump()


def deltas(chunks: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [choice["delta"] for chunk in chunks for choice in chunk["choices"]]


def test_text_is_streamed_between_role_and_finish_reason() -> None:
    chunks, _ = fold(("text", ["Hel", "lo"]), options=ChatAnswerOptions(created=9))
    head = {"id": "chatcmpl-01x", "object": "chat.completion.chunk", "created": 9, "model": "m"}
    assert all(head.items() <= chunk.items() and "usage" not in chunk for chunk in chunks)
    assert deltas(chunks) == [
        {"role": "assistant", "content": ""},
        {"content": "Hel"},
        {"content": "lo"},
        {},
    ]
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [choice["finish_reason"] for choice in choices] == [None, None, None, "stop"]
    assert all((choice["index"], choice["logprobs"]) == (0, None) for choice in choices)


def test_role_waits_for_the_first_content_by_which_clients_time_the_prompt() -> None:
    answer = ChatFold(ALL)
    start, block, *others = events_of([("text", ["Hi"])], "end_turn")
    assert answer.feed([start, block]) == []
    sent = [one.model_dump() for one in answer.feed(others[:1])]
    assert deltas(sent) == [{"role": "assistant", "content": ""}, {"content": "Hi"}]


def test_usage_is_in_a_last_chunk_without_choices() -> None:
    *chunks, last = fold(("text", ["x"]))[0]
    assert [chunk["usage"] for chunk in chunks] == [None] * len(chunks)
    assert last["choices"] == ()
    assert last["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 7,
        "total_tokens": 17,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 4},
    }


def test_calls_are_numbered_and_named_once() -> None:
    chunks, whole = fold(
        ("text", ["Look."]), ("f", ['{"a"', ": 1}"]), ("g", ["{}"]), stop="tool_use"
    )
    calls = [delta["tool_calls"][0] for delta in deltas(chunks) if "tool_calls" in delta]
    assert calls == [
        {
            "index": 0,
            "id": "call_1",
            "type": "function",
            "function": {"name": "f", "arguments": ""},
        },
        {"index": 0, "function": {"arguments": '{"a"'}},
        {"index": 0, "function": {"arguments": ": 1}"}},
        {
            "index": 1,
            "id": "call_2",
            "type": "function",
            "function": {"name": "g", "arguments": ""},
        },
        {"index": 1, "function": {"arguments": "{}"}},
    ]
    choice = whole["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Look."
    assert [call["function"] for call in choice["message"]["tool_calls"]] == [
        {"name": "f", "arguments": '{"a": 1}'},
        {"name": "g", "arguments": "{}"},
    ]


def test_input_of_a_custom_tool_is_sent_as_text() -> None:
    chunks, whole = fold(("patch", ['{"inp', 'ut": "a\\n', 'b"}']), stop="tool_use")
    custom = {"name": "patch", "input": "a\nb"}
    call = {"id": "call_0", "type": "custom", "custom": custom}
    assert [delta["tool_calls"] for delta in deltas(chunks) if "tool_calls" in delta] == [
        ({"index": 0, **call},)
    ]
    assert whole["choices"][0]["message"]["tool_calls"] == (call,)


def test_arguments_that_were_cut_are_no_json() -> None:
    _, whole = fold(("f", ['{"a": "b']), stop="max_tokens")
    (call,) = whole["choices"][0]["message"]["tool_calls"]
    assert call["function"]["arguments"] == '{"a": "b'
    assert whole["choices"][0]["finish_reason"] == "length"


def test_cut_call_of_a_custom_tool_is_left_out() -> None:
    chunks, whole = fold(("patch", ['{"input": "a\\nb']), stop="max_tokens")
    assert not any("tool_calls" in delta for delta in deltas(chunks))
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": "", "refusal": None}
    assert whole["choices"][0]["finish_reason"] == "length"


def test_thought_has_both_names_and_is_no_content() -> None:
    chunks, whole = fold(("thinking", ["Hm", "."]), ("text", ["Hi"]))
    assert deltas(chunks)[1:3] == [
        {"reasoning_content": "Hm", "reasoning": "Hm"},
        {"reasoning_content": ".", "reasoning": "."},
    ]
    message = whole["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Hi", "Hm.")


def test_absent_parts_of_a_message_have_no_key() -> None:
    message = fold(("text", ["Hi"]))[1]["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "Hi", "refusal": None}
    calls = fold(("f", ["{}"]), stop="tool_use")[1]["choices"][0]["message"]
    assert calls["content"] is None
    assert fold()[1]["choices"][0]["message"]["content"] == ""


@pytest.mark.parametrize(
    ("stop", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
    ],
)
def test_stop_reason_is_a_finish_reason(stop: StopReason, finish: str) -> None:
    chunks, whole = fold(("text", ["x"]), stop=stop)
    assert whole["choices"][0]["finish_reason"] == chunks[-2]["choices"][0]["finish_reason"]
    assert whole["choices"][0]["finish_reason"] == finish


def test_each_chunk_has_the_logprobs_of_its_text() -> None:
    answer = ChatFold(ChatAnswerOptions(created=9))
    chunks = answer.feed(scored_text([("Hi", [b"H", b"i"]), ("!", [b"!"])]))
    found = [chunk.choices[0].logprobs for chunk in chunks]
    assert found[0] is found[-1] is None
    top = [{"token": "x", "logprob": -0.25, "bytes": [120]}]
    assert [one.model_dump(mode="json") for one in found[1:-1]] == [
        {
            "content": [
                {"token": "H", "logprob": -0.5, "bytes": [72], "top_logprobs": top},
                {"token": "i", "logprob": -0.5, "bytes": [105], "top_logprobs": top},
            ],
            "refusal": None,
        },
        {
            "content": [{"token": "!", "logprob": -0.5, "bytes": [33], "top_logprobs": top}],
            "refusal": None,
        },
    ]
    (whole,) = answer.completion.choices
    assert [one.token for one in whole.logprobs.content] == ["H", "i", "!"]
    state = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(ChatCompletionChunk.model_validate_json(chunk.to_json()))
    (streamed,) = state.get_final_completion().choices
    assert streamed.logprobs.model_dump() == whole.logprobs.model_dump(mode="json")


def test_several_answers_are_choices_with_their_index_and_one_usage() -> None:
    options = ChatAnswerOptions(created=9, includes_usage=True, choices=2)
    answer = ChatFold(options)
    first, second = events_of([("text", ["a"])]), events_of([("f", ["{}"])], "tool_use")
    chunks = answer.feed(second[:4], 1) + answer.feed(first, 0)
    assert not answer.is_ended
    chunks += answer.feed(second[4:], 1)
    *choices, usage = chunks
    assert [chunk.choices[0].index for chunk in choices] == [1, 1, 1, 0, 0, 0, 1]
    assert len({chunk.id for chunk in chunks}) == 1
    assert usage.choices == ()
    assert usage.model_dump()["usage"] == answer.completion.usage.model_dump()
    assert usage.model_dump()["usage"] | {"completion_tokens_details": 0} == {
        "prompt_tokens": 10,
        "completion_tokens": 14,
        "total_tokens": 24,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": 0,
    }
    whole = answer.completion.choices
    assert [(one.index, one.finish_reason) for one in whole] == [(0, "stop"), (1, "tool_calls")]


def test_service_tier_is_told_where_it_was_sent() -> None:
    options = ChatAnswerOptions(created=9, service_tier="default")
    chunks, whole = fold(("text", ["x"]), options=options)
    assert whole["service_tier"] == "default"
    assert {chunk["service_tier"] for chunk in chunks} == {"default"}
    assert "service_tier" not in fold(("text", ["x"]))[1]


PIECES = st.lists(st.text("ab\u2028\n", min_size=1, max_size=4), max_size=4)
JSON_PIECES = st.sampled_from([["{}"], ['{"a"', ":1}"], ['{"a": "', "\\u00e9", '"}'], ["{", "}"]])
BLOCKS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["text", "thinking"]), PIECES),
        st.tuples(st.sampled_from(["f", "g"]), JSON_PIECES),
    ),
    max_size=4,
)


@given(BLOCKS)
def test_official_client_adds_the_chunks_up_to_the_completion(blocks: list[Block]) -> None:
    answer = ChatFold(ALL)
    state = ChatCompletionStreamState()
    for chunk in answer.feed(events_of(blocks, "tool_use")):
        state.handle_chunk(ChatCompletionChunk.model_validate_json(chunk.to_json()))
    streamed = state.get_final_completion().model_dump(exclude_none=True)
    whole = answer.completion.model_dump(exclude_none=True)
    message, expected = streamed["choices"][0]["message"], whole["choices"][0]["message"]
    assert message["content"] == expected.get("content", "")
    assert message.get("reasoning_content") == expected.get("reasoning_content")
    assert [call["function"]["arguments"] for call in message.get("tool_calls", ())] == [
        call["function"]["arguments"] for call in expected.get("tool_calls", ())
    ]
    assert streamed["usage"] == whole["usage"]


@given(BLOCKS)
def test_completion_does_not_depend_on_how_texts_are_cut(blocks: list[Block]) -> None:
    whole = [(kind, ["".join(pieces)] if any(pieces) else []) for kind, pieces in blocks]
    assert fold(*blocks)[1] == fold(*whole)[1]
