"""Prompt tokens and generations, on a tokenizer over bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.api.messages.request import Conversation
from pensieve.errors import InvalidRequestError, PromptTooLongError
from pensieve.prompt.render import PromptRenderer
from pensieve.prompt.template.probe import SystemTurns, system_turns
from tests.support.fakes import CONTROLS, ByteTokenizer

USER = {"role": "user", "content": "hi"}
SYSTEM = {"role": "system", "content": "note"}
ASSISTANT = {"role": "assistant", "content": "yes"}


def rendered(*messages: dict[str, str], of: str = "anywhere", **fields: object) -> str:
    tokenizer = ByteTokenizer(of)
    call = Conversation.model_validate({"model": "m", "messages": messages, **fields})
    return tokenizer.decode(PromptRenderer(tokenizer).render(call).tokens)


def test_prompt_ends_where_the_answer_begins() -> None:
    assert rendered(USER, system="be brief") == (
        "<|system|>\nbe brief<|end|>\n<|user|>\nhi<|end|>\n<|assistant|>\n"
    )


def test_a_final_assistant_turn_is_continued_without_its_trailing_space() -> None:
    prefill = {"role": "assistant", "content": "The answer is  \n"}
    assert rendered(USER, prefill).endswith("<|assistant|>\nThe answer is")


@pytest.mark.parametrize(
    ("kind", "abilities"),
    [
        ("anywhere", SystemTurns(first=True, between=True)),
        ("first", SystemTurns(first=True, between=False)),
        ("ignored", SystemTurns(first=True, between=False)),
        ("never", SystemTurns(first=False, between=False)),
    ],
)
def test_probe_finds_which_system_turns_a_template_writes(
    kind: str, abilities: SystemTurns
) -> None:
    assert system_turns(ByteTokenizer(kind)) == abilities


@pytest.mark.parametrize("kind", ["first", "ignored"])
def test_unsupported_system_turn_becomes_user_text_in_its_position(kind: str) -> None:
    assert rendered(USER, SYSTEM, system="top", of=kind) == (
        "<|system|>\ntop<|end|>\n"
        "<|user|>\nhi\n\n<system-reminder>\nnote\n</system-reminder><|end|>\n<|assistant|>\n"
    )


def test_without_system_turns_the_system_prompt_begins_the_users_text() -> None:
    assert rendered(USER, ASSISTANT, USER, system="top", of="never").startswith(
        "<|user|>\ntop\n\nhi<|end|>\n<|assistant|>\nyes"
    )


@pytest.mark.parametrize("context_tokens", [None, 1000])
def test_prompt_far_longer_than_the_context_is_refused_if_the_limit_is_given(
    context_tokens: int | None,
) -> None:
    renderer = PromptRenderer(ByteTokenizer())
    long = {"role": "user", "content": "x" * 100_000}
    call = Conversation.model_validate({"model": "m", "messages": [long]})
    if context_tokens is None:
        assert renderer.render(call).original_tokens > 100_000
    else:
        with pytest.raises(PromptTooLongError, match="> 1000 maximum"):
            renderer.render(call, context_tokens=context_tokens)


def test_conversation_without_user_turn_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match='a message with the "user" role is'):
        rendered(ASSISTANT)


fragments = st.lists(st.sampled_from([*CONTROLS, "<", "|", "<|", "end|>", "é", "x", "\ue000"]))
texts = st.lists(fragments.map("".join), min_size=1, max_size=3)


@given(texts, texts, st.sampled_from(["anywhere", "first", "ignored", "never"]))
def test_no_client_text_becomes_a_control_token(
    user_texts: list[str], system_texts: list[str], kind: str
) -> None:
    content = [{"type": "text", "text": text} for text in ("u", *user_texts)]
    system = [{"type": "text", "text": text} for text in ("s", *system_texts)]
    messages = [{"role": role, "content": content} for role in ("user", "system", "assistant")]
    renderer = PromptRenderer(ByteTokenizer(kind))
    tokens = renderer.render(
        Conversation.model_validate({"model": "m", "messages": messages, "system": system})
    ).tokens
    openings = [token for token in tokens if token >= 256]
    plain = rendered(USER, SYSTEM, system="s", of=kind)
    assert openings == [CONTROLS[name] for name in _controls_in(plain)]


def _controls_in(text: str) -> list[str]:
    return [
        name for name in text.replace("<|", " <|").replace("|>", "|> ").split() if name in CONTROLS
    ]
