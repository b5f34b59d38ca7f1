"""Invariant of the prefix cache: a prompt begins with the previous one and its answer.

Tested for the shapes of Claude Code's conversations (2026-11, 2.1.330), in our own words: tool
loops, results in another order, rewritten input, system turns in between, moving cache marks, texts
that become blocks and back, tools found later, changing counters and billing lines.
"""

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pensieve.prompt.render import Prompt
from pensieve.prompt.template.generated_answers import GeneratedAnswers
from tests.prompt.chat_models import DIALECTS, MODELS
from tests.prompt.sessions import TOOLS, Session, as_client, begins, call, in_single_chars

any_model = pytest.mark.parametrize("model", MODELS)
EPHEMERAL = {"type": "ephemeral"}
SEARCH = {"name": "ToolSearch", "input_schema": {"type": "object"}}
PLACEHOLDER = {"name": "DeferredToolPlaceholder", "input_schema": {}, "defer_loading": True}
FOUND = {"name": "Alarm", "description": "Rings.", "input_schema": {}, "defer_loading": True}
STEPS = ["call", "parallel", "note", "words", "two", "system", "search", "cut", "plan"]


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


class Client:
    """Continues a session like the client does, and changes what may change between requests."""

    def __init__(self, model: str, chance: Random) -> None:
        self.model = model
        self.chance = chance
        self.session = Session(model, tools=[*TOOLS, SEARCH, PLACEHOLDER])
        self.session.messages = [
            {"role": "user", "content": [text("<system-reminder>\nBe brief.\n</system-reminder>")]},
            {"role": "user", "content": "Edit it."},
            {"role": "system", "content": "The directory is /work/shop."},
        ]
        self._reshape()

    def step(self, kind: str) -> tuple[Prompt, list[int], Prompt]:
        """The prompt, its answer's tokens, and the prompt after that."""
        tokens = in_single_chars(self.model, self._answer(kind))
        before, message = self.session.answer(tokens, is_cut=kind == "cut")
        content = as_client(message)
        uses = [block for block in content if block["type"] == "tool_use"]
        if kind == "cut" and uses:
            written = {"raw": '{"path": "a', "len": 11}
            uses[-1]["input"] = {"__unparsedToolInput": written}
        self.session.messages += [
            {"role": "assistant", "content": content},
            *self._next(kind, uses),
        ]
        self._reshape()
        return before, tokens, self.session.prompt()

    def _answer(self, kind: str) -> str:
        calls = DIALECTS[self.model].calls
        match kind:
            case "words" | "two":
                return "Done, é!"
            case "cut":
                whole = call(self.model, path="a b c")
                return whole[: whole.index("a b c") + 1]
            case "parallel" if calls.separator is not None or calls.closing:
                return "Both.\n" + both(self.model)
            case _:
                return call(self.model, path="é.py", line="12")

    def _next(self, kind: str, uses: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        results = [
            {
                "type": "tool_result",
                "tool_use_id": use["id"],
                "content": f"line {at}",
                "is_error": at == 1,
            }
            for at, use in enumerate(uses)
        ]
        if kind == "search" and results:
            results[0]["content"] = [{"type": "tool_reference", "tool_name": "Alarm"}]
            if FOUND not in self.session.fields["tools"]:
                self.session.fields["tools"] = [FOUND, *self.session.fields["tools"]]
        message = {"role": "user", "content": results[::-1] or [text("And now?")]}
        match kind:
            case "note":
                message["content"] += [
                    text("<system-reminder>\nThe file changed.\n</system-reminder>")
                ]
            case "two":
                return [message, {"role": "user", "content": [text("Wait."), text("Now.")]}]
            case "system":
                return [message, {"role": "system", "content": [text("The date changed.")]}]
            case "plan":
                notes = [text("Plan first."), text("Change nothing.")]
                return [
                    message,
                    {"role": "system", "content": notes},
                    {"role": "system", "content": "It is late."},
                ]
            case _:
                pass
        return [message]

    def _reshape(self) -> None:
        for message in self.session.messages:
            blocks = message["content"]
            blocks = [text(blocks)] if isinstance(blocks, str) else blocks
            blocks = [{k: v for k, v in one.items() if k != "cache_control"} for one in blocks]
            is_plain = len(blocks) == 1 and blocks[0]["type"] == "text"
            message["content"] = (
                blocks[0]["text"] if is_plain and self.chance.random() < 0.5 else blocks
            )
        last = self.session.messages[-1]["content"]
        if isinstance(last, list):
            last[-1]["cache_control"] = EPHEMERAL
        number = self.chance.randrange(10**6)
        self.session.fields["system"] = [
            text(f"x-anthropic-billing-header: cc_version=2.1.{number}; cc_entrypoint=cli;"),
            text("You help.") | {"cache_control": EPHEMERAL},
            text(f"Edit files.\n<total_tokens>{number} tokens left</total_tokens>\n"),
        ]


def both(model: str) -> str:
    from pensieve.dialects.dialect import ToolCall
    from pensieve.dialects.format_calls import format_calls

    calls = [
        ToolCall("edit", {"path": "a"}, "a12345678"),
        ToolCall("edit", {"path": "b", "line": 2}, "b12345678"),
    ]
    return format_calls(DIALECTS[model].calls, calls)


@any_model
@given(steps=st.lists(st.sampled_from(STEPS), min_size=1, max_size=6), seed=st.integers(0, 99))
@settings(max_examples=15)
def test_prompt_begins_with_the_previous_one_and_its_answer(
    model: str, steps: list[str], seed: int
) -> None:
    client = Client(model, Random(seed))
    for step in steps:
        before, tokens, after = client.step(step)
        assert begins(after, before, tokens), step


@any_model
@pytest.mark.parametrize("step", STEPS)
def test_resumed_session_shares_the_prompt_without_answers(model: str, step: str) -> None:
    """The server has lost its stored answers; from then on the invariant holds again."""
    client = Client(model, Random(1))
    client.step("call")
    before = client.session.prompt()
    client.session.answers = GeneratedAnswers()
    resumed = Session(model, **client.session.fields)
    resumed.messages = client.session.messages
    client.session = resumed
    first = resumed.prompt()
    end = before.boundaries[0]
    assert first.tokens[:end] == before.tokens[:end]
    before, tokens, after = client.step(step)
    assert begins(after, before, tokens)


@any_model
def test_compaction_shares_the_whole_prefix_and_then_system_and_tools(model: str) -> None:
    client = Client(model, Random(2))
    client.step("parallel")
    client.step("system")
    tokens = in_single_chars(model, "Done.")
    before, message = client.session.answer(tokens)
    client.session.messages += [
        {"role": "assistant", "content": as_client(message)},
        {"role": "user", "content": "Answer with TEXT ONLY: sum it up."},
    ]
    assert begins(client.session.prompt(), before, tokens)
    client.session.messages = [{"role": "user", "content": "This is what was said before: little."}]
    started = client.session.prompt()
    assert started.tokens[: before.pinned_tokens] == before.tokens[: before.pinned_tokens]
    assert started.pinned_tokens == before.pinned_tokens


@any_model
def test_text_followed_by_another_later_is_shared_entirely(model: str) -> None:
    """The other text is a separate message, or a block after a new line break."""
    session = Session(model)
    alone = session.prompt()
    shared = []
    for messages in (
        [{"role": "user", "content": "Edit it."}, {"role": "user", "content": "Wait."}],
        [{"role": "user", "content": [text("Edit it.\n"), text("Wait.")]}],
    ):
        session.messages = messages
        shared.append(session.prompt().tokens)
    assert shared[0] == shared[1]
    session.messages = [{"role": "user", "content": "Edit it!"}]
    other = session.prompt()
    assert common(alone.tokens, shared[0]) >= common(alone.tokens, other.tokens)


def common(one: Sequence[int], other: Sequence[int]) -> int:
    return [left == right for left, right in zip(one, other, strict=False)].index(False)
