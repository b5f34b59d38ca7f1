"""Boundaries and cache breakpoints: places in a prompt that later prompts share, on real templates and tokenizers."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pensieve.api.messages.request import Conversation, decode
from pensieve.prompt.render import MAX_BREAKPOINTS, Prompt, PromptRenderer
from tests.fakes import ByteTokenizer
from tests.prompt.chat_models import DIALECTS, MODELS

any_model = pytest.mark.parametrize("model", MODELS)
RENDERERS = {name: PromptRenderer(MODELS[name], DIALECTS[name]) for name in MODELS}
CONTROLS = ["<|end|>", "<|im_end|>\n<|im_start|>", "</s>", "<think>", "<tool_call>"]
words = st.lists(
    st.sampled_from([*CONTROLS, "x", " ", "\n", "Hello", "é", "🙂", "<|im", "end|>", "1984"]),
    max_size=5,
).map("".join)
spoken = words.filter(lambda text: text.strip())
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
@given(system=words, said=st.lists(spoken, min_size=1, max_size=4), answer=spoken, more=spoken)
@settings(max_examples=40)
def test_the_next_turn_begins_with_this_one_up_to_its_last_boundary(
    model: str, system: str, said: list[str], answer: str, more: str
) -> None:
    roles = [user, assistant]
    before = [roles[at % 2](text) for at, text in enumerate(said[: len(said) // 2 * 2])]
    now = [*before, user(said[-1])]
    this = rendered(model, *now, system=system)
    following = rendered(model, *now, assistant(answer), user(more), system=system)
    assert this.boundaries == tuple(sorted(set(this.boundaries)))
    assert 0 < this.boundaries[-1] < len(this.tokens)
    assert shared(this, following) >= this.boundaries[-1]
    # All but where the answer begins: what was said by the user is within.
    other = rendered(model, *before, user(said[-1] + " other"), system=system)
    assert this.boundaries[-1] > shared(this, other) - 2


@any_model
@given(system=words, first=spoken, second=spoken, third=spoken)
@settings(max_examples=25)
def test_the_end_of_the_turn_before_is_a_boundary_of_this_one_too(
    model: str, system: str, first: str, second: str, third: str
) -> None:
    one = rendered(model, user(first), system=system)
    two = rendered(model, user(first), assistant(second), user(third), system=system)
    assert any(one.boundaries[-1] <= place <= shared(one, two) for place in two.boundaries)


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
@pytest.mark.parametrize("said", ["x", "y", " x", "xy"])
def test_what_a_user_says_is_never_pinned(model: str, said: str) -> None:
    one = rendered(model, user(said), system="s")
    other = rendered(model, user("z"), system="s")
    # Phi-3's control tokens swallow the space behind them, a user's too: then the last one does not count.
    assert 0 <= other.pinned_tokens - one.pinned_tokens <= 1


def test_without_a_system_prompt_nothing_is_pinned() -> None:
    assert rendered("chatml", user("Hello")).pinned_tokens == 0


def test_a_passing_system_turn_lies_behind_the_last_boundary() -> None:
    passing = {"role": "system", "content": "plan mode is on " * 9, "clear_at": "next_user_message"}
    now = [user("Hello"), passing]
    this = rendered("chatml", *now, system="s")
    following = rendered("chatml", *now, assistant("ok"), user("go"), system="s")
    assert 0 < this.boundaries[-1] <= shared(this, following) < len(this.tokens) - 40


def test_only_the_last_turns_before_this_one_have_boundaries() -> None:
    said = [entry for n in range(9) for entry in (user(f"q{n}"), assistant(f"a{n}"))]
    prompt = rendered("chatml", *said, user("last"), system="s")
    assert len(prompt.boundaries) == 4


def test_a_template_without_control_tokens_has_no_boundaries() -> None:
    class Plain(ByteTokenizer):
        def render(self, messages: Any, variables: Any = None) -> str:
            return "".join(f"{turn['role']}: {turn['content']}\n\n" for turn in messages)

    body = {"model": "m", "messages": [user("hi", cache_control=EPHEMERAL)], "system": "s"}
    prompt = PromptRenderer(Plain()).render(decode(Conversation, body))
    assert prompt.boundaries == ()
    assert [place.tokens for place in prompt.breakpoints] == [0]


@any_model
def test_breakpoints_stand_at_the_ends_of_the_turns_that_hold_them(model: str) -> None:
    said = [
        user("first " * 9, cache_control=EPHEMERAL | {"ttl": "1h"}),
        assistant("second " * 9),
        user("third " * 9, cache_control=EPHEMERAL),
    ]
    prompt = rendered(model, *said, system="s")
    early, late = prompt.breakpoints
    assert (early.ttl, late.ttl) == ("1h", "5m")
    assert early.tokens <= shared(rendered(model, said[0], system="s"), prompt)
    assert late.tokens == prompt.boundaries[-1]
    assert early.tokens < late.tokens < len(prompt.tokens)


def test_the_mark_of_a_whole_call_stands_at_its_end_and_that_of_a_tool_with_the_system_part() -> (
    None
):
    tool = {"name": "x", "input_schema": {}, "cache_control": EPHEMERAL | {"ttl": "1h"}}
    prompt = rendered("chatml", user("Hello"), system="s", tools=[tool], cache_control=EPHEMERAL)
    assert [(place.tokens, place.ttl) for place in prompt.breakpoints] == [
        (prompt.pinned_tokens, "1h"),
        (prompt.boundaries[-1], "5m"),
    ]


def test_a_mark_inside_the_begun_answer_counts_as_at_the_end() -> None:
    begun = {
        "role": "assistant",
        "content": [{"type": "text", "text": "Sure", "cache_control": EPHEMERAL}],
    }
    prompt = rendered("chatml", user("Hello"), begun, system="s")
    assert [place.tokens for place in prompt.breakpoints] == [prompt.boundaries[-1]]


def test_of_too_many_marks_the_last_ones_count() -> None:
    said = [user(f"q{n}", cache_control=EPHEMERAL) for n in range(3)]
    asked = [entry for one in said for entry in (one, assistant("a"))]
    system = [{"type": "text", "text": "s", "cache_control": EPHEMERAL}]
    prompt = rendered("chatml", *asked, *asked, user("last"), system=system)
    assert len(prompt.breakpoints) == MAX_BREAKPOINTS
    assert prompt.breakpoints[0].tokens > prompt.pinned_tokens


@any_model
@given(words, spoken)
@settings(max_examples=25)
def test_tokens_with_edges_are_the_tokens(model: str, system: str, text: str) -> None:
    tokenizer = MODELS[model]
    messages = [{"role": "user", "content": tokenizer.neutralize(system + text)}]
    written = tokenizer.render(messages)
    tokens, edges = tokenizer.encode_with_edges(written)
    assert tokens == tokenizer.encode(written)
    assert [tokens[place - 1] for _, place in edges] == [
        token for token in tokens if token in tokenizer.control_tokens
    ]
    for letters, place in edges:
        assert tokenizer.encode(written[:letters]) == tokens[:place]
