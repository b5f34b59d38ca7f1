"""Find the divergence of a session's prompts: none, or the block that the client changed."""

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
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Hello."},
                    {"type": "text", "text": "Read x."},
                ],
            },
            {"role": "assistant", "content": [{"type": "text", "text": "I read it."}, USE]},
            {"role": "user", "content": [RESULT]},
            {"role": "assistant", "content": "It says nothing."},
            {"role": "user", "content": "And now?"},
        ],
    }


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


def change_question_to_the_next_text(fields: dict[str, Any]) -> None:
    fields["messages"][0]["content"][1]["text"] = "I read it."


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
    ("change", "path"),
    [
        (change_tool, "tools.0"),
        (change_system, "system.1"),
        (change_question, "messages.0.content.1"),
        (change_question_to_the_next_text, "messages.0.content.1"),
        (change_use, "messages.1.content.1"),
        (change_result, "messages.2.content.0"),
        (change_answer, "messages.3.content.0"),
    ],
)
def test_divergence_names_the_block_that_the_client_changed(
    model: str, change: Callable[[dict[str, Any]], None], path: str
) -> None:
    difference = found(model, change)
    assert difference is not None
    last, _ = rendered(model, body())
    fields = body()
    change(fields)
    changed, _ = rendered(model, fields)
    shared = [a == b for a, b in zip(last.tokens, changed.tokens, strict=False)].index(False)
    assert difference.path == path
    assert 0 < difference.tokens <= shared
    assert difference.last_tokens == len(last.tokens)


@any_model
def test_continued_session_has_no_divergence(model: str) -> None:
    def go_on(fields: dict[str, Any]) -> None:
        fields["messages"] += [
            {"role": "assistant", "content": "Nothing."},
            {"role": "user", "content": "Good."},
        ]

    assert found(model, go_on) is None


@any_model
def test_usual_changes_between_requests_are_no_divergence(model: str) -> None:
    client = Client(model, Random(3))
    for step in STEPS:
        before, _, after = client.step(step)
        call = decode(
            Conversation,
            {"model": "m", "messages": client.session.messages, **client.session.fields},
        )
        assert divergence(LastPrompt.of(before), after, call, MODELS[model].neutralize) is None


@any_model
def test_divergence_before_all_blocks_is_in_the_templates_text(model: str) -> None:
    prompt, conversation = rendered(model, body())
    difference = divergence(LastPrompt("?", 1, 7), prompt, conversation, MODELS[model].neutralize)
    assert difference == Divergence(0, 7, "the template's own text")


@any_model
def test_all_of_a_prompt_with_a_prefill_is_continued(model: str) -> None:
    fields = body()
    fields["messages"].append({"role": "assistant", "content": "Now it"})
    prompt, _ = rendered(model, fields)
    assert LastPrompt.of(prompt).shared_chars == len(prompt.rendered.text)


def test_template_that_moves_earlier_text_causes_a_divergence() -> None:
    """Like some older templates of Mistral's, which write the tools before the last user turn."""

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
    difference = divergence(last, renderer.render(second), second, MODELS["chatml"].neutralize)
    assert difference is not None
    assert difference.path == "messages.0.content.0"
