"""Find the dialect of a chat template, by its marks and by what it renders."""

# ruff: noqa: RUF001 -- DeepSeek's marks contain these characters

import pytest

from pensieve.dialects.dialect import ThinkingForm
from pensieve.dialects.registry import DIALECTS, dialect_of
from pensieve.models.tokenizer.chat_template import ChatTemplate
from tests.prompt.chat_models import HERMES_TEMPLATE, THINKING_TEMPLATE
from tests.support import tiny_models

# The specific part of each family's template, around a loop that writes tools, turns and results.
OWN = {
    "hermes": "<tool_call> tool_call.name",
    "qwen-coder": "<tool_call>\\n<function=",
    "mistral": "[TOOL_CALLS]",
    "mistral-list-with-id": '[TOOL_CALLS] "id": "',
    "mistral-named": "[TOOL_CALLS] [ARGS]",
    "mistral-with-id": "[TOOL_CALLS] [CALL_ID] [ARGS]",
    "llama3": '<|start_header_id|> "parameters"',
    "gemma4": "<|tool_call> <tool_call|>",
    "function-gemma": "<start_function_call>",
    "lfm2": "<|tool_list_start|>",
    "kimi": "<|tool_calls_section_begin|>",
    "deepseek-v3": "<｜tool▁calls▁begin｜> ```json",
    "deepseek-v3.1": "<｜tool▁calls▁begin｜>",
    "glm": "<tool_call> <arg_key> </arg_key>\n<arg_value>",
    "glm-4.7": "<tool_call> <arg_key> </arg_key><arg_value>",
    "minimax": "<minimax:tool_call>",
    "harmony": "<|channel|>analysis<|message|>",
}
LOOP = """\
{{ tools | tojson }}
{%- for message in messages %}
{{- message.role + ': ' + message.content }}
{%- for call in message.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}
{%- endfor %}"""


def name_of(template: str) -> str:
    return dialect_of(template, ChatTemplate(template, {}).render, []).name


@pytest.mark.parametrize("name", OWN)
def test_dialect_is_found_from_the_template(name: str) -> None:
    assert name_of("{# " + OWN[name] + " #}" + LOOP) == name


def test_every_registered_module_has_a_template_that_finds_it() -> None:
    found = {
        module.__name__ for own in OWN.values() for module in DIALECTS if module.dialect_in(own)
    }
    assert found == {module.__name__ for module in DIALECTS}


@pytest.mark.parametrize(
    "template",
    [
        LOOP,
        tiny_models.PHI3_TEMPLATE,
        tiny_models.CHATML_TEMPLATE,
        # Contain the marks, but omit results, calls, or tools.
        "{# <tool_call> tool_call.name #}"
        + LOOP.replace("message.role +", "'' if message.role == 'tool' else"),
        "{# <tool_call> tool_call.name #}" + LOOP.replace("{{ tools | tojson }}", ""),
        "{# [TOOL_CALLS] #}" + LOOP.replace("message.tool_calls or []", "[]"),
        "{# <tool_call> tool_call.name #}{{ raise_exception('no tools') if tools }}" + LOOP,
    ],
)
def test_template_that_omits_tools_gets_the_plain_dialect(template: str) -> None:
    assert name_of(template) == "plain"


@pytest.mark.parametrize(
    ("template", "controls", "thinking"),
    [
        (HERMES_TEMPLATE, [], None),
        (HERMES_TEMPLATE, ["<think>"], ThinkingForm()),
        (THINKING_TEMPLATE, [], ThinkingForm()),
        (
            "{% if enable_thinking is false %}<think>{% endif %}",
            [],
            ThinkingForm(on={"enable_thinking": True}, off={"enable_thinking": False}),
        ),
    ],
)
def test_the_marks_and_the_switch_of_thoughts_are_found(
    template: str, controls: list[str], thinking: ThinkingForm | None
) -> None:
    found = ChatTemplate(template, {})
    assert dialect_of(template, found.render, controls, found.names).thinking == thinking


def test_marks_are_the_control_tokens_that_the_dialect_writes() -> None:
    dialect = dialect_of(HERMES_TEMPLATE, ChatTemplate(HERMES_TEMPLATE, {}).render, ["<think>"])
    controls = ["<tool_call>", "</tool_call>", "<think>", "</think>", "<|im_end|>"]
    assert dialect.marks(controls) == set(controls[:4])
