"""Generated answers: a conversation that clients send back altered renders to the same tokens."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pensieve.api.messages.message import TextContent, ThinkingContent, ToolUseContent
from pensieve.api.messages.request import Conversation, decode
from pensieve.prompt.conversation.turns import ChatTurn
from pensieve.prompt.render import PromptRenderer
from pensieve.prompt.template.generated_answers import GeneratedAnswer, GeneratedAnswers
from tests.prompt.chat_models import DIALECTS, MODELS
from tests.prompt.sessions import ASKED, Session, as_client, begins, call, in_single_chars

any_model = pytest.mark.parametrize("model", MODELS)


@any_model
@pytest.mark.parametrize("has_thinking", [True, False])
def test_the_next_turn_begins_with_the_prompt_and_the_tokens_of_the_answer(
    model: str, has_thinking: bool
) -> None:
    fields = {"thinking": {"type": "adaptive"}} if has_thinking else {}
    session = Session(model, **fields)
    is_other: list[bool] = []
    for text in (
        "Let me see.\n" + call(model, path="é.py", line="12"),
        call(model, line="3"),
        "Done, é!",
    ):
        tokens = in_single_chars(model, text)
        before, message = session.answer(tokens)
        after = session.go_on(as_client(message))
        assert begins(after, before, tokens)
        is_other.append(tokens != MODELS[model].encode(text))
    assert any(is_other)


def test_returned_thoughts_stay_in_the_prompt() -> None:
    session = Session("thinking", thinking={"type": "adaptive"})
    tokens = in_single_chars("thinking", "Done.")
    before, message = session.answer(tokens)
    assert begins(session.go_on(as_client(message)), before, tokens)
    again = in_single_chars("thinking", "Yes.")
    before, message = session.answer(again)
    assert begins(session.go_on(as_client(message)), before, again)


def test_truncated_answer_is_continued() -> None:
    session = Session("hermes")
    tokens = in_single_chars("hermes", "I was about to")
    before, message = session.answer(tokens, is_cut=True)
    assert begins(session.go_on(as_client(message)), before, tokens)


@pytest.mark.parametrize(
    "change",
    [
        {"input": {}},
        {"input": {"path": "other"}},
        {"name": "write"},
        {"id": "toolu_other"},
    ],
)
def test_tool_use_changed_by_the_client_is_rendered_as_changed(change: dict[str, Any]) -> None:
    session = Session("hermes")
    tokens = in_single_chars("hermes", call("hermes", path="a"))
    before, message = session.answer(tokens)
    (block,) = as_client(message)
    after = session.go_on([block | change])
    assert not begins(after, before, tokens)
    detokenizer = MODELS["hermes"].detokenizer()
    text = "".join(map(detokenizer.feed, after.tokens))
    assert json.dumps(change.get("input", {"all": False, "path": "a"}))[1:-1] in text


def test_empty_text_added_by_the_client_changes_nothing() -> None:
    session = Session("hermes")
    tokens = in_single_chars("hermes", call("hermes", path="a"))
    before, message = session.answer(tokens)
    after = session.go_on([{"type": "text", "text": ""}, *as_client(message)])
    assert begins(after, before, tokens)


def test_text_added_by_the_client_is_rendered() -> None:
    session = Session("hermes")
    tokens = in_single_chars("hermes", call("hermes", path="a"))
    before, message = session.answer(tokens)
    after = session.go_on([{"type": "text", "text": "zebra"}, *as_client(message)])
    assert not begins(after, before, tokens)
    detokenizer = MODELS["hermes"].detokenizer()
    assert "zebra" in "".join(map(detokenizer.feed, after.tokens))


def test_answer_is_rendered_if_the_template_refuses_placeholders() -> None:
    """For example a template that requires calls before a result."""

    class Particular:
        def __init__(self) -> None:
            self._model = MODELS["hermes"]

        def __getattr__(self, name: str) -> Any:
            return getattr(self._model, name)

        def render(self, messages: Sequence[Mapping[str, Any]], variables: Any = None) -> str:
            text = self._model.render(messages, variables)
            return text.replace("\ufdd2", "")

    session = Session("hermes")
    session.renderer = PromptRenderer(Particular(), DIALECTS["hermes"], answers=session.answers)  # type: ignore[arg-type]
    _, message = session.answer(in_single_chars("hermes", call("hermes", path="zebra")))
    after = session.go_on(as_client(message))
    detokenizer = MODELS["hermes"].detokenizer()
    assert "zebra" in "".join(map(detokenizer.feed, after.tokens))


texts = st.text(st.sampled_from(list("ab é🙂\n<>{}")), min_size=1, max_size=12).filter(str.strip)


@given(st.lists(texts, min_size=1, max_size=3), texts)
@settings(max_examples=30)
def test_next_prompt_continues_any_answers_in_any_turns(texts: list[str], path: str) -> None:
    for model in ("hermes", "phi3"):
        session = Session(model)
        for text in texts:
            tokens = in_single_chars(model, text + "\n" + call(model, path=path))
            before, message = session.answer(tokens)
            assert begins(session.go_on(as_client(message)), before, tokens)


def generated(*content: Any, tokens: int = 3) -> GeneratedAnswer:
    return GeneratedAnswer("", range(tokens), content)


def test_least_recently_used_answer_is_removed_first() -> None:
    session = Session("hermes")
    session.answers = GeneratedAnswers(max_tokens=10)
    for name in "abc":
        session.answers.add(generated(ToolUseContent(id=name, name="t", input={}), tokens=4))
    assert [found is not None for found in map(looked_up(session), "abc")] == [False, True, True]
    assert [answer.content[0].id for answer in session.answers.entries()] == ["b", "c"]  # type: ignore[union-attr]


def test_repeated_answer_counts_once_and_is_removed_last() -> None:
    session = Session("hermes")
    session.answers = GeneratedAnswers(max_tokens=10)
    for name in "abaac":
        session.answers.add(generated(ToolUseContent(id=name, name="t", input={}), tokens=5))
    assert [found is not None for found in map(looked_up(session), "abc")] == [True, False, True]


def test_answer_larger_than_the_limit_is_not_stored() -> None:
    session = Session("hermes")
    session.answers = GeneratedAnswers(max_tokens=10)
    session.answers.add(generated(ToolUseContent(id="a", name="t", input={}), tokens=10))
    session.answers.add(generated(ToolUseContent(id="b", name="t", input={}), tokens=11))
    assert [found is not None for found in map(looked_up(session), "ab")] == [True, False]


def looked_up(session: Session) -> Any:
    def find(name: str) -> Any:
        use = {"type": "tool_use", "id": name, "name": "t", "input": {}}
        body = {"model": "m", "messages": [ASKED, {"role": "assistant", "content": [use]}]}
        blocks = decode(Conversation, body).messages[1].content
        return session.answers.retrieve(ChatTurn("assistant", (blocks,)))

    return find


THOUGHT = {"type": "thinking", "thinking": "Hm."}
USE = {"type": "tool_use", "id": "a", "name": "t", "input": {}}
TEXT = {"type": "text", "text": "Done."}
THINKING = ThinkingContent(thinking="Hm.", signature="s")
WITH_CALL = (THINKING, ToolUseContent(id="a", name="t", input={}))
WITH_TEXT = (THINKING, TextContent(text="Done."))


def is_found(answers: GeneratedAnswers, *blocks: dict[str, Any]) -> bool:
    body = {"model": "m", "messages": [ASKED, {"role": "assistant", "content": blocks}]}
    turn = ChatTurn("assistant", (decode(Conversation, body).messages[1].content,))
    return answers.retrieve(turn) is not None


@pytest.mark.parametrize(
    ("content", "blocks", "found"),
    [
        (WITH_CALL, [THOUGHT | {"signature": "s"}, USE], True),
        (WITH_CALL, [THOUGHT | {"signature": "x"}, USE], False),
        (WITH_CALL, [THOUGHT, USE], True),
        (WITH_CALL, [THOUGHT | {"thinking": "Hm. "}, USE], True),
        (WITH_CALL, [THOUGHT | {"thinking": "Well."}, USE], False),
        (WITH_CALL, [USE], True),
        (WITH_TEXT, [THOUGHT, TEXT], True),
        (WITH_TEXT, [THOUGHT | {"thinking": "Well."}, TEXT], False),
        (WITH_TEXT, [THOUGHT, TEXT | {"text": "Gone."}], False),
        # Two answers may have the same text after different thoughts.
        (WITH_TEXT, [TEXT], False),
    ],
)
def test_answer_is_found_by_its_thought_without_signature_or_by_its_call_alone(
    content: Any, blocks: list[dict[str, Any]], found: bool
) -> None:
    answers = GeneratedAnswers()
    answers.add(generated(*content))
    assert is_found(answers, *blocks) == found


def test_removed_answer_is_not_found_by_its_thought() -> None:
    answers = GeneratedAnswers(max_tokens=6)
    for signature in "ab":
        thinking = ThinkingContent(thinking="Hm.", signature=signature)
        answers.add(generated(thinking, TextContent(text="Done.")))
    assert is_found(answers, THOUGHT, TEXT)
    for text in "xy":
        answers.add(generated(TextContent(text=text)))
    assert not is_found(answers, THOUGHT, TEXT)
    assert answers._keys == {}


def test_empty_answer_is_not_stored() -> None:
    answers = GeneratedAnswers()
    answers.add(generated())
    answers.add(generated(TextContent(text="  ")))
    answers.add(generated(ThinkingContent(thinking="t", signature="s")))
    assert len(answers._entries) == 1
