"""Models with one chat template for conversations with tools and one for others."""

from dataclasses import replace
from typing import Any

import pytest

from pensieve.api.messages.message import ToolUseContent
from pensieve.api.messages.request import Conversation, decode
from pensieve.dialects.registry import dialect_of
from pensieve.models.tokenizer.chat_template import ChatTemplate
from pensieve.models.tokenizer.chat_tokenizer import ModelTokenizer
from pensieve.prompt.render import Prompt, PromptRenderer
from pensieve.prompt.template.generated_answers import GeneratedAnswer, GeneratedAnswers
from tests.prompt.chat_models import HERMES_TEMPLATE
from tests.support import tiny_models

# Has no tools and no system part, and begins an answer differently from the other.
DEFAULT = """\
{%- for message in messages %}
{%- if message.role not in ('user', 'assistant') %}{{ raise_exception('no ' + message.role) }}\
{% endif %}
{{- '<|im_start|>' + message.role + ':' + message.content + '<|im_end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant:' }}{% endif %}"""
TOOL = {"name": "look", "description": "d", "input_schema": {"type": "object"}}
USE = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "walnut"}


def renderer(answers: GeneratedAnswers | None = None) -> PromptRenderer:
    template = ChatTemplate(DEFAULT, {}, tool_source=HERMES_TEMPLATE)
    model = ModelTokenizer(tiny_models.byte_level_tokenizer(is_qwen=True), template, ())
    dialect = dialect_of(template.source, model.render, model.controls, template.names)
    assert dialect.name == "hermes"
    return PromptRenderer(model, replace(dialect, has_tool_template=True), answers=answers)


def prompt_of(of: PromptRenderer, *turns: dict[str, Any], **fields: Any) -> Prompt:
    messages = [{"role": "user", "content": "hi"}, *turns]
    return of.render(decode(Conversation, {"model": "m", "messages": messages, **fields}))


def test_the_template_is_chosen_by_the_request() -> None:
    of = renderer()
    assert prompt_of(of).rendered.text == "<|im_start|>user:hi<|im_end|><|im_start|>assistant:"
    assert "<tools>" in prompt_of(of, tools=[TOOL]).rendered.text


def test_system_part_goes_where_the_template_in_use_accepts_it() -> None:
    of = renderer()
    assert prompt_of(of, system="granite").rendered.text.startswith("<|im_start|>user:granite")
    with_tools = prompt_of(of, system="granite", tools=[TOOL]).rendered.text
    assert with_tools.startswith("<|im_start|>system\ngranite")


def test_a_conversation_that_has_used_tools_keeps_their_template() -> None:
    turns = ({"role": "assistant", "content": [USE]}, {"role": "user", "content": [RESULT]})
    text = prompt_of(renderer(), *turns).rendered.text
    assert "<tool_response>\nwalnut\n</tool_response>" in text


@pytest.mark.parametrize("fields", [{}, {"tools": [TOOL]}, {"tools": [TOOL], "system": "granite"}])
def test_the_next_prompt_begins_with_this_one_up_to_its_boundaries(fields: Any) -> None:
    of = renderer()
    first = prompt_of(of, **fields)
    turns = ({"role": "assistant", "content": "yes"}, {"role": "user", "content": "more"})
    second = prompt_of(of, *turns, **fields)
    assert first.boundaries
    for boundary in first.boundaries:
        assert first.tokens[:boundary] == second.tokens[:boundary]


def test_generated_answer_follows_its_own_prompt() -> None:
    answers = GeneratedAnswers()
    of = renderer(answers)
    first = prompt_of(of, tools=[TOOL])
    assert first.opening == "<|im_start|>assistant\n"
    written = tuple(b'<tool_call>{"name":"look","arguments":{}}</tool_call>')
    content = (ToolUseContent(id="toolu_1", name="look", input={}),)
    answers.add(GeneratedAnswer(first.opening, written, content))
    turns = ({"role": "assistant", "content": [USE]}, {"role": "user", "content": [RESULT]})
    second = prompt_of(of, *turns, tools=[TOOL])
    assert second.tokens[: len(first.tokens) + len(written)] == (*first.tokens, *written)
