"""Boundaries and cache breakpoints of prompts, on real templates and tokenizers."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pensieve.api.messages.request import Conversation, decode
from pensieve.errors import InvalidRequestError
from pensieve.prompt.render import MAX_BREAKPOINTS, Prompt, PromptRenderer
from pensieve.prompt.template.renderer import (
    BoundaryFinder,
    RenderedPrompt,
    common_prefix_length,
)
from tests.prompt.chat_models import DIALECTS, MODELS
from tests.support.fakes import ByteTokenizer

any_model = pytest.mark.parametrize("model", MODELS)
RENDERERS = {name: PromptRenderer(MODELS[name], DIALECTS[name]) for name in MODELS}
CONTROLS = ["<|end|>", "<|im_end|>\n<|im_start|>", "</s>", "<think>", "<tool_call>"]
texts = st.lists(
    st.sampled_from([*CONTROLS, "x", " ", "\n", "Hello", "é", "🙂", "<|im", "end|>", "1984"]),
    max_size=5,
).map("".join)
nonblank_texts = texts.filter(lambda text: text.strip())
EPHEMERAL = {"type": "ephemeral"}


def user(text: str, **fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": text, **fields}]}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def rendered(model: str, *messages: dict[str, Any], **fields: Any) -> Prompt:
    body = {"model": "m", "messages": messages, **fields}
    return RENDERERS[model].render(decode(Conversation, body))


def shared(one: Prompt, other: Prompt) -> int:
    pairs = zip(one.tokens, other.tokens, strict=False)
    return next(
        (at for at, (left, right) in enumerate(pairs) if left != right),
        min(len(one.tokens), len(other.tokens)),
    )


@any_model
@given(
    system=texts,
    messages=st.lists(nonblank_texts, min_size=1, max_size=4),
    answer=nonblank_texts,
    more=nonblank_texts,
)
@settings(max_examples=40)
def test_next_prompt_begins_with_this_one_up_to_its_last_boundary_on_real_templates(
    model: str, system: str, messages: list[str], answer: str, more: str
) -> None:
    roles = [user, assistant]
    before = [roles[at % 2](text) for at, text in enumerate(messages[: len(messages) // 2 * 2])]
    now = [*before, user(messages[-1])]
    this = rendered(model, *now, system=system)
    following = rendered(model, *now, assistant(answer), user(more), system=system)
    assert this.boundaries == tuple(sorted(set(this.boundaries)))
    assert 0 < this.boundaries[-1] < len(this.tokens)
    assert shared(this, following) >= this.boundaries[-1]
    # All but the beginning of the answer: the user's text is included.
    other = rendered(model, *before, user(messages[-1] + " other"), system=system)
    assert this.boundaries[-1] > shared(this, other) - 2


@any_model
@given(system=texts, first=nonblank_texts, second=nonblank_texts, third=nonblank_texts)
@settings(max_examples=25)
def test_end_of_the_previous_turn_is_a_boundary_of_this_prompt(
    model: str, system: str, first: str, second: str, third: str
) -> None:
    one = rendered(model, user(first), system=system)
    two = rendered(model, user(first), assistant(second), user(third), system=system)
    assert any(one.boundaries[-1] <= boundary <= shared(one, two) for boundary in two.boundaries)


@any_model
def test_a_system_prompt_is_pinned_and_shared_by_other_conversations(model: str) -> None:
    system = "You are helpful. " * 20
    one = rendered(model, user("Hello"), system=system)
    other = rendered(model, user("Where?"), system=system)
    assert one.pinned_tokens <= shared(one, other)
    if model == "strict":
        assert one.pinned_tokens == 0
    else:
        assert one.pinned_tokens == other.pinned_tokens == one.boundaries[0]
        assert one.pinned_tokens > 40


@any_model
@pytest.mark.parametrize("text", ["x", "y", " x", "xy"])
def test_user_text_is_never_pinned(model: str, text: str) -> None:
    one = rendered(model, user(text), system="s")
    other = rendered(model, user("z"), system="s")
    # Phi-3's control tokens absorb the space after them, the user's too: then the last one does not
    # count.
    assert 0 <= other.pinned_tokens - one.pinned_tokens <= 1


def test_without_a_system_prompt_nothing_is_pinned() -> None:
    assert rendered("chatml", user("Hello")).pinned_tokens == 0


def test_temporary_system_turn_follows_the_last_boundary() -> None:
    passing = {"role": "system", "content": "plan mode is on " * 9, "clear_at": "next_user_message"}
    now = [user("Hello"), passing]
    this = rendered("chatml", *now, system="s")
    following = rendered("chatml", *now, assistant("ok"), user("go"), system="s")
    assert 0 < this.boundaries[-1] <= shared(this, following) < len(this.tokens) - 40


def test_only_the_last_turns_before_this_one_have_boundaries() -> None:
    messages = [entry for n in range(9) for entry in (user(f"q{n}"), assistant(f"a{n}"))]
    prompt = rendered("chatml", *messages, user("last"), system="s")
    assert len(prompt.boundaries) == 4


def test_a_template_without_control_tokens_has_no_boundaries() -> None:
    class Plain(ByteTokenizer):
        def render(self, messages: Any, variables: Any = None) -> str:
            return "".join(f"{turn['role']}: {turn['content']}\n\n" for turn in messages)

    body = {"model": "m", "messages": [user("hi", cache_control=EPHEMERAL)], "system": "s"}
    prompt = PromptRenderer(Plain()).render(decode(Conversation, body))
    assert prompt.boundaries == ()
    assert [mark.tokens for mark in prompt.breakpoints] == [0]


@any_model
def test_breakpoints_are_at_the_ends_of_their_turns(model: str) -> None:
    messages = [
        user("first " * 9, cache_control=EPHEMERAL | {"ttl": "1h"}),
        assistant("second " * 9),
        user("third " * 9, cache_control=EPHEMERAL),
    ]
    prompt = rendered(model, *messages, system="s")
    early, late = prompt.breakpoints
    assert (early.ttl, late.ttl) == ("1h", "5m")
    assert early.tokens <= shared(rendered(model, messages[0], system="s"), prompt)
    assert late.tokens == prompt.boundaries[-1]
    assert early.tokens < late.tokens < len(prompt.tokens)


def test_request_breakpoint_is_at_the_end_and_tool_breakpoint_after_the_system_part() -> None:
    tool = {"name": "x", "input_schema": {}, "cache_control": EPHEMERAL | {"ttl": "1h"}}
    prompt = rendered("chatml", user("Hello"), system="s", tools=[tool], cache_control=EPHEMERAL)
    assert [(mark.tokens, mark.ttl) for mark in prompt.breakpoints] == [
        (prompt.pinned_tokens, "1h"),
        (prompt.boundaries[-1], "5m"),
    ]


def test_breakpoint_inside_the_prefill_counts_as_at_the_end() -> None:
    begun = {
        "role": "assistant",
        "content": [{"type": "text", "text": "Sure", "cache_control": EPHEMERAL}],
    }
    prompt = rendered("chatml", user("Hello"), begun, system="s")
    assert [mark.tokens for mark in prompt.breakpoints] == [prompt.boundaries[-1]]


def test_only_the_last_breakpoints_count_if_there_are_too_many() -> None:
    messages = [user(f"q{n}", cache_control=EPHEMERAL) for n in range(3)]
    conversation = [entry for one in messages for entry in (one, assistant("a"))]
    system = [{"type": "text", "text": "s", "cache_control": EPHEMERAL}]
    prompt = rendered("chatml", *conversation, *conversation, user("last"), system=system)
    assert len(prompt.breakpoints) == MAX_BREAKPOINTS
    assert prompt.breakpoints[0].tokens > prompt.pinned_tokens


@any_model
@given(texts, nonblank_texts)
@settings(max_examples=25)
def test_tokens_with_edges_are_the_tokens(model: str, system: str, text: str) -> None:
    tokenizer = MODELS[model]
    messages = [{"role": "user", "content": tokenizer.neutralize(system + text)}]
    written = tokenizer.render(messages)
    tokens, edges = tokenizer.encode_with_edges(written)
    assert tokens == tokenizer.encode(written)
    assert [tokens[count - 1] for _, count in edges] == [
        token for token in tokens if token in tokenizer.control_tokens
    ]
    for chars, count in edges:
        assert tokenizer.encode(written[:chars]) == tokens[:count]


def test_tokens_within_a_text_end_at_its_edges_and_before_the_last_token() -> None:
    prompt = RenderedPrompt("abcd", (1, 2, 3), ((1, 1), (2, 2), (4, 3)))
    assert [prompt.tokens_within(chars) for chars in range(6)] == [0, 1, 2, 2, 2, 2]


def test_a_conversation_that_the_template_refuses_shares_nothing() -> None:
    def refuse(_: object) -> str:
        raise InvalidRequestError("roles must alternate")

    prompt = RenderedPrompt("ab", (1, 2), ((1, 1), (2, 2)))
    assert BoundaryFinder(prompt, lambda _: "ab").shared_with([]) == 1
    assert BoundaryFinder(prompt, refuse).shared_with([]) == 0


@given(st.text("ab", max_size=5), st.text("ab", max_size=5))
def test_common_prefix_is_the_longest_beginning_of_both(one: str, other: str) -> None:
    length = common_prefix_length(one, other)
    assert one[:length] == other[:length]
    assert length in {len(one), len(other)} or one[length] != other[length]
