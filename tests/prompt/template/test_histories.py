"""Tool loops in each family: texts stay in order, and the next prompt continues the previous."""

import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pensieve.api.messages.message import AnswerContent, TextContent, ToolUseContent
from pensieve.api.messages.request import Conversation, decode
from pensieve.dialects.dialect import ThinkingForm, ToolCall
from pensieve.dialects.format_calls import format_calls
from pensieve.dialects.grammar.schema_simplifier import arguments_schema
from pensieve.dialects.grammar.tagged_values import tagged_values_of
from pensieve.prompt.render import Prompt, PromptRenderer
from pensieve.prompt.template.generated_answers import GeneratedAnswer, GeneratedAnswers
from pensieve.prompt.template.probe import abilities_of, opening_of
from tests.prompt.history_templates import FAMILIES, MODELS

MISTRALS = ["mistral", "mistral-list-with-id"]
any_family = pytest.mark.parametrize("family", FAMILIES)
# Its template writes calls differently each time: such answers are not recalled.
RECALLED = sorted(set(FAMILIES) - {"minimax, changing"})
SCHEMA = {"type": "object", "properties": {"p": {"type": "string"}}}
TOOLS = [{"name": name, "description": "does", "input_schema": SCHEMA} for name in ("Read", "Grep")]
# Text, calls, and whether the user adds a text after the results.
STEPS = st.tuples(st.booleans(), st.integers(0, 3), st.booleans()).filter(lambda s: s[0] or s[1])


class Session:
    """One conversation with one family's model."""

    def __init__(self, family: str) -> None:
        self.model, self.dialect = MODELS[family]
        self.answers = GeneratedAnswers()
        self.renderer = PromptRenderer(self.model, self.dialect, answers=self.answers)
        self.messages: list[dict[str, Any]] = [{"role": "user", "content": "w0w"}]
        self.markers = ["w0w"]  # all texts, in order
        self.calls: list[tuple[str, str]] = []  # names of tools, and texts of results

    def restart(self) -> None:
        """Continue on a server without stored answers."""
        self.answers = GeneratedAnswers()
        self.renderer = PromptRenderer(self.model, self.dialect, answers=self.answers)

    def prompt(self) -> Prompt:
        body = {"model": "m", "messages": self.messages, "tools": TOOLS}
        return self.renderer.render(decode(Conversation, body))

    def text(self) -> str:
        return self.model._tokenizer.decode(list(self.prompt().tokens), skip_special_tokens=False)

    def step(
        self, *, has_text: bool, calls: int, has_more: bool, without: str = ""
    ) -> tuple[Prompt, list[int]]:
        """Generate an answer and append a user turn. Return the answer's prompt and tokens."""
        prompt = self.prompt()
        text = self._new_marker() if has_text else ""
        uses = [self._use(at) for at in range(calls)]
        answer_text = text + self._written(uses)
        tokens = self.model.encode(answer_text.removesuffix(without))
        content: list[AnswerContent] = [TextContent(text=text)] if text else []
        content += [ToolUseContent(id=i, name=n, input=given) for i, n, given in uses]
        assert prompt.opening is not None
        self.answers.add(GeneratedAnswer(prompt.opening, tokens, tuple(content)))
        blocks = [block.model_dump() for block in content]
        self.messages.append({"role": "assistant", "content": blocks})
        self.messages.append({"role": "user", "content": list(self._following(uses, has_more))})
        return prompt, tokens

    def _new_marker(self) -> str:
        self.markers.append(f"w{len(self.markers)}w")
        return self.markers[-1]

    def _use(self, at: int) -> tuple[str, str, dict[str, object]]:
        name = TOOLS[at % 2]["name"]
        assert isinstance(name, str)
        marker = self._new_marker()
        return f"toolu_{marker}", name, {"p": marker}

    def _written(self, uses: list[tuple[str, str, dict[str, object]]]) -> str:
        calls = [ToolCall(name, given, f"model{at:04}") for at, (_, name, given) in enumerate(uses)]
        return format_calls(self.dialect.calls, calls) if calls else ""

    def _following(
        self, uses: list[tuple[str, str, dict[str, object]]], has_more: bool
    ) -> Iterator[dict[str, Any]]:
        for use_id, name, _ in uses:
            marker = self._new_marker()
            self.calls.append((name, marker))
            yield {"type": "tool_result", "tool_use_id": use_id, "content": marker}
        if has_more or not uses:
            yield {"type": "text", "text": self._new_marker()}

    def assert_whole(self) -> None:
        """Assert that each marker occurs once, calls precede results, and no placeholder
        remains.
        """
        text = self.text()
        found = re.findall(r"w\d+w", text.replace("toolu_", ""))
        assert sorted(found) == sorted(self.markers), text
        assert "\ufdd2" not in text
        offsets = [text.index(marker) for marker in self.markers]
        for turn in self._turns():
            assert [offsets[at] for at in turn] == sorted(offsets[at] for at in turn), text

    def _turns(self) -> Iterator[list[int]]:
        """Yield indexes of markers that must be in order: each turn with its results."""
        at = 1
        yield [0, 1]
        for message in self.messages[1::2]:
            uses = [block for block in message["content"] if block["type"] == "tool_use"]
            texts = len(message["content"]) - len(uses)
            calls = at + texts
            for n in range(len(uses)):
                yield [at, calls + n, calls + len(uses) + n]
            user = self.messages[self.messages.index(message) + 1]["content"]
            yield [at, at + len(message["content"]) + len(user) - 1]
            at += len(message["content"]) + len(user)

    def assert_open(self) -> None:
        """Assert that the prompt does not end in a closed turn, and begins an answer if it can."""
        text = self.text()
        opening = opening_of(self.model, {})
        assert opening is not None
        is_begun = bool(opening.whole) and text.endswith(opening.whole)
        is_closed = any(text.endswith(end) for end in opening.closings)
        assert is_begun or not opening.whole or not is_closed, text


def test_each_family_is_found_from_its_template() -> None:
    names = [name.partition(",")[0].removesuffix(" by id") for name in FAMILIES]
    assert [dialect.name for _, dialect in MODELS.values()] == names


@any_family
@given(steps=st.lists(STEPS, min_size=1, max_size=3), restarts=st.sets(st.integers(0, 2)))
@settings(max_examples=12)
def test_history_keeps_all_texts_in_order_and_the_prompt_stays_open(
    family: str, steps: list[tuple[bool, int, bool]], restarts: set[int]
) -> None:
    session = Session(family)
    for at, (has_text, calls, has_more) in enumerate(steps):
        session.step(has_text=has_text, calls=calls, has_more=has_more)
        if at in restarts:
            session.restart()
        session.assert_whole()
        session.assert_open()


@pytest.mark.parametrize("family", RECALLED)
@given(steps=st.lists(STEPS, min_size=1, max_size=3))
@settings(max_examples=12)
def test_next_prompt_begins_with_the_previous_one_and_its_answer(
    family: str, steps: list[tuple[bool, int, bool]]
) -> None:
    session = Session(family)
    for has_text, calls, has_more in steps:
        # Parallel calls of a template that takes none are rendered with their results.
        count = min(calls, 1) if "one call" in family or family == "harmony" else calls
        prompt, tokens = session.step(
            has_text=has_text or not count, calls=count, has_more=has_more
        )
        whole = (*prompt.tokens, *tokens)
        assert session.prompt().tokens[: len(whole)] == whole, session.text()


@pytest.mark.parametrize("mark", ["<|call|>", ""])
def test_recalled_call_has_its_end_mark_once(mark: str) -> None:
    """The token that ends a harmony call is a stop token, which no stored answer has."""
    session = Session("harmony")
    for _ in range(2):
        prompt, tokens = session.step(has_text=False, calls=1, has_more=False, without=mark)
        whole = (*prompt.tokens, *tokens)
        assert session.prompt().tokens[: len(whole)] == whole
    text = session.text()
    assert text.count("<|call|>") == 2
    assert text.count(" <|constrain|>json<|message|>") == 2  # as the model writes, not the template
    assert re.findall(r"functions\.(\w+) to=assistant.*?(w\d+w)", text) == session.calls
    assert text.endswith("<|start|>assistant")


@pytest.mark.parametrize("family", ["gemma4", "gemma4 by id", "function-gemma"])
@pytest.mark.parametrize("is_stored", [True, False])
@pytest.mark.parametrize("has_text", [True, False])
def test_results_follow_their_mark_and_name_their_tool(
    family: str, is_stored: bool, has_text: bool
) -> None:
    session = Session(family)
    session.step(has_text=has_text, calls=2, has_more=False)
    session.step(has_text=not has_text, calls=1, has_more=True)
    if not is_stored:
        session.restart()
    text = session.text()
    pattern = r"<(?:\|tool_response|start_function_response)>response:(\w+)\{value:<.{3,6}>(w\d+w)"
    assert re.findall(pattern, text) == session.calls


@pytest.mark.parametrize("is_stored", [True, False])
def test_results_have_the_ids_that_their_calls_have(is_stored: bool) -> None:
    for family, call, result in (
        ("mistral-list-with-id", r'"id": "(\w+)"', r"\[TOOL_RESULTS\](.+?)\[TOOL_CONTENT\]"),
        ("kimi", r"<\|tool_call_begin\|>(.+?)<", r"## Return of (.+)\n"),
        ("mistral-with-id", r"\[CALL_ID\](.+?)\[ARGS\]", r"\[TOOL_RESULTS\](.+?)\[TOOL_CONTENT\]"),
    ):
        session = Session(family)
        session.step(has_text=True, calls=2, has_more=False)
        if not is_stored:
            session.restart()
        text = session.text()
        ids = re.findall(call, text)
        assert len(set(ids)) == 2
        assert re.findall(result, text) == ids
        if is_stored and family.startswith("mistral"):
            assert ids == ["model0000", "model0001"]
        if family == "kimi":
            assert ids == ["functions.Read:0", "functions.Grep:1"]


@pytest.mark.parametrize(
    ("family", "limit"),
    [
        ("mistral", "does not write text before tool calls: both are written in its place"),
        ("gemma4", "does not write text before tool calls: both are written in its place"),
        ("minimax, one call", "takes no parallel calls"),
    ],
)
def test_template_limits_are_logged_once(
    family: str, limit: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pensieve.prompt")
    session = Session(family)
    session.step(has_text=True, calls=1, has_more=False)
    session.text()
    assert [limit in line for line in caplog.messages] == [True]


def test_template_limits_are_logged_once_for_all_thinking_options(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "pensieve.prompt")
    model, dialect = MODELS["mistral"]
    switch = ThinkingForm(on={"thinks": True}, off={"thinks": False})
    renderer = PromptRenderer(model, replace(dialect, thinking=switch))
    for kind in ("adaptive", "disabled"):
        body = {"model": "m", "messages": [{"role": "user", "content": "w"}]}
        renderer.render(decode(Conversation, body | {"thinking": {"type": kind}}))
    assert len(caplog.messages) == 1


@any_family
@pytest.mark.parametrize("is_stored", [True, False])
def test_results_after_a_text_of_the_user_stay(family: str, is_stored: bool) -> None:
    session = Session(family)
    session.step(has_text=True, calls=2, has_more=True)
    session.messages[-1]["content"].reverse()
    if not is_stored:
        session.restart()
    found = re.findall(r"w\d+w", session.text().replace("toolu_", ""))
    assert sorted(found) == sorted(session.markers)


@pytest.mark.parametrize("family", ["minimax", "hermes", "kimi"])
def test_template_without_limits_is_not_logged(
    family: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pensieve.prompt")
    Session(family).text()
    assert caplog.messages == []


def test_text_in_place_of_calls_begins_like_the_templates_texts() -> None:
    session = Session("minimax, text or calls")
    session.step(has_text=True, calls=1, has_more=False)
    session.restart()
    assert "]~b]ai\n[text]w1w\n<minimax:tool_call>" in session.text()


def test_user_text_after_results_is_a_separate_turn_if_turns_need_not_alternate() -> None:
    tried = {name: abilities_of(*MODELS[name], {}) for name in FAMILIES}
    assert [name for name in FAMILIES if not tried[name].text_after_results] == MISTRALS
    within = [name for name in FAMILIES if not tried[name].results_after_text]
    assert within == ["gemma4", *MISTRALS]


ODD_NAMES = ["file path", "a<b", "", "x%y", "a:b"]
ODD_SCHEMA = {
    "type": "object",
    "properties": {name: {"type": ["string", "null"]} for name in ODD_NAMES},
}


@pytest.mark.parametrize("family", ["gemma4", "function-gemma", "minimax", "glm"])
def test_history_has_the_names_and_texts_that_the_model_writes(family: str) -> None:
    session = Session(family)
    given = dict(zip(ODD_NAMES, ["null", "x", "y", "z", "v"], strict=True))
    use = {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": given}
    session.messages += [
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1"}]},
    ]
    tools = [{"name": "Read", "description": "does", "input_schema": ODD_SCHEMA}]
    body = {"model": "m", "messages": session.messages, "tools": tools}
    prompt = session.renderer.render(decode(Conversation, body))
    text = session.model._tokenizer.decode(list(prompt.tokens), skip_special_tokens=False)
    form = session.dialect.calls.parameters
    assert form is not None
    slots = {"Read": tagged_values_of(arguments_schema(ODD_SCHEMA), form)}
    written = format_calls(session.dialect.calls, [ToolCall("Read", given)], str, slots)
    arguments = written[written.index(form.before_key + "file") :].rpartition("<")[0].strip()
    assert re.sub(r"\s", "", arguments) in re.sub(r"\s", "", text), text
