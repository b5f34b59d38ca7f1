"""Where a session's prompt leaves its last one: nowhere while the law holds, else at the block that the client changed."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from pensieve.api.messages.request import Conversation, decode
from pensieve.prompt.cache_divergence import Divergence, LastPrompt, divergence
from pensieve.prompt.render import Prompt, PromptRenderer
from tests.prompt.chat_models import DIALECTS, MODELS
from tests.prompt.test_shapes import STEPS, Client

any_model = pytest.mark.parametrize("model", MODELS)
RENDERERS = {name: PromptRenderer(MODELS[name], DIALECTS[name]) for name in MODELS}
USE = {"type": "tool_use", "id": "a", "name": "Read", "input": {"path": "x"}}
RESULT = {"type": "tool_result", "tool_use_id": "a", "content": "The file says: nothing."}


def body() -> dict[str, Any]:
    return {
        "model": "m",
        "system": [{"type": "text", "text": "You help."}, {"type": "text", "text": "Be brief."}],
        "tools": [{"name": "Read", "description": "Reads a file.", "input_schema": {}}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hello."}, {"type": "text", "text": "Read x."}]},
            {"role": "assistant", "content": [{"type": "text", "text": "I read it."}, USE]},
            {"role": "user", "content": [RESULT]},
            {"role": "assistant", "content": "It says nothing."},
            {"role": "user", "content": "And now?"},
        ],
    }  # fmt: skip


def rendered(model: str, fields: dict[str, Any]) -> tuple[Prompt, Conversation]:
    conversation = decode(Conversation, fields)
    return RENDERERS[model].render(conversation), conversation


def found(model: str, change: Callable[[dict[str, Any]], None]) -> Divergence | None:
    last, _ = rendered(model, body())
    changed = body()
    change(changed)
    prompt, conversation = rendered(model, changed)
    return divergence(LastPrompt.of(last), prompt, conversation, MODELS[model].neutralize)


def change_system(fields: dict[str, Any]) -> None:
    fields["system"][1]["text"] = "Be long."


def change_question(fields: dict[str, Any]) -> None:
    fields["messages"][0]["content"][1]["text"] = "Read y."


def change_result(fields: dict[str, Any]) -> None:
    fields["messages"][2]["content"] = [RESULT | {"content": "The file says: much."}]


def change_answer(fields: dict[str, Any]) -> None:
    fields["messages"][3]["content"] = "It says nothing at all."


def change_tool(fields: dict[str, Any]) -> None:
    fields["tools"][0]["name"] = "Write"


def change_use(fields: dict[str, Any]) -> None:
    fields["messages"][1]["content"][1] = USE | {"input": {"path": "y"}}


@any_model
@pytest.mark.parametrize(
    ("change", "place"),
    [
        (change_tool, "tools.0"),
        (change_system, "system.1"),
        (change_question, "messages.0.content.1"),
        (change_use, "messages.1.content.1"),
        (change_result, "messages.2.content.0"),
        (change_answer, "messages.3.content.0"),
    ],
)
def test_what_the_client_changed_is_told(
    model: str, change: Callable[[dict[str, Any]], None], place: str
) -> None:
    what = found(model, change)
    assert what is not None
    last, _ = rendered(model, body())
    fields = body()
    change(fields)
    changed, _ = rendered(model, fields)
    shared = [a == b for a, b in zip(last.tokens, changed.tokens, strict=False)].index(False)
    assert what.place == place
    assert 0 < what.tokens <= shared
    assert what.last_tokens == len(last.tokens)


@any_model
def test_what_is_gone_on_with_is_no_divergence(model: str) -> None:
    def go_on(fields: dict[str, Any]) -> None:
        fields["messages"] += [
            {"role": "assistant", "content": "Nothing."},
            {"role": "user", "content": "Good."},
        ]

    assert found(model, go_on) is None


@any_model
def test_the_shapes_of_conversations_are_none_either(model: str) -> None:
    client = Client(model, Random(3))
    for step in STEPS:
        before, _, after = client.step(step)
        call = decode(
            Conversation,
            {"model": "m", "messages": client.session.messages, **client.session.fields},
        )
        assert divergence(LastPrompt.of(before), after, call, MODELS[model].neutralize) is None


def test_a_template_that_moves_what_was_said_is_found_out() -> None:
    """As some older ones of Mistral's, which write the tools before the last user turn."""

    class Moving:
        def __getattr__(self, name: str) -> Any:
            return getattr(MODELS["chatml"], name)

        def render(self, messages: Any, variables: Any = None) -> str:
            last = max(at for at, one in enumerate(messages) if one["role"] == "user")
            moved = [
                {**one, "content": "[TOOLS]" + one["content"]} if at == last else one
                for at, one in enumerate(messages)
            ]
            return MODELS["chatml"].render(moved, variables)

    renderer = PromptRenderer(Moving())  # type: ignore[arg-type]
    first = decode(Conversation, body() | {"messages": body()["messages"][:1]})
    second = decode(Conversation, body())
    last = LastPrompt.of(renderer.render(first))
    what = divergence(last, renderer.render(second), second, MODELS["chatml"].neutralize)
    assert what is not None
    assert what.place == "messages.0.content.0"
