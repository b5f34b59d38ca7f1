"""Find thinking marks, switches and ends of turn by trial renderings of chat templates."""

import time

import pytest

from pensieve.dialects.dialect import ThinkingForm
from pensieve.dialects.probing.probe import Probe
from pensieve.dialects.probing.thinking_controls import nearest_effort
from pensieve.dialects.probing.turn_ends import ends_of_turn
from pensieve.dialects.registry import dialect_of
from pensieve.models.tokenizer.chat_template import ChatTemplate
from tests.prompt.chat_models import HERMES_TEMPLATE
from tests.prompt.thinking_styles import COHERE, QWEN, STYLES
from tests.support import tiny_models

any_style = pytest.mark.parametrize("name", STYLES)


def form_of(name: str) -> ThinkingForm:
    form = STYLES[name].dialect.thinking
    assert form is not None
    return form


@any_style
def test_thinking_marks_are_found_around_a_rendered_thought(name: str) -> None:
    form, style = form_of(name), STYLES[name]
    assert (form.opening, form.closing) == style.marks
    assert form.message_field == style.message_field


@any_style
def test_switch_and_efforts_are_values_that_change_the_prompt(name: str) -> None:
    form, style = form_of(name), STYLES[name]
    assert (dict(form.on), dict(form.off)) == (style.on, style.off)
    assert {effort: dict(variables) for effort, variables in form.efforts.items()} == style.efforts
    assert form.is_begun == style.is_begun
    assert form.is_used == bool(style.on or style.efforts or style.is_begun)


@any_style
def test_ends_of_turn_are_the_tokens_after_an_answer(name: str) -> None:
    assert STYLES[name].found_ends == set(STYLES[name].ends)


@any_style
def test_marks_inside_an_answer_do_not_end_a_turn(name: str) -> None:
    style = STYLES[name]
    assert not style.found_ends & style.dialect.marks(style.tokenizer.controls)


def test_marks_around_an_answers_text_are_silent() -> None:
    assert STYLES["sky"].dialect.silent == ("<|begin_of_solution|>",)
    assert STYLES["cohere"].dialect.silent == ("<|START_RESPONSE|>",)
    assert form_of("sky").after == "\n\n<|begin_of_solution|>\n"


def test_mark_before_a_text_is_silent_with_and_without_what_follows_a_thought() -> None:
    source = COHERE.replace("'<|END_THINKING|>' }}{%", "'<|END_THINKING|><|SEP|>' }}{%")
    template = ChatTemplate(source, {})
    controls = ["<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>", "<|SEP|>"]
    assert dialect_of(source, template.render, controls, template.names).silent == (
        "<|SEP|><|START_RESPONSE|>",
        "<|START_RESPONSE|>",
    )


def test_likely_switches_are_tried_before_other_names() -> None:
    source = tiny_models.CHATML_TEMPLATE.replace(
        "assistant\n' }}", "assistant\n<think>' + ('</think>' if not enable_thinking else '') }}"
    )
    names = [*(f"a_reason_{at}" for at in range(20)), "enable_thinking"]
    form = dialect_of(
        source, ChatTemplate(source, {}).render, ["<think>", "</think>"], names
    ).thinking
    assert form is not None
    assert (form.on, form.off) == ({"enable_thinking": True}, {"enable_thinking": False})


@pytest.mark.parametrize(
    ("template", "controls", "marks"),
    [
        ("x", ["<|reason_start|>", "<|reason_end|>"], ("<|reason_start|>", "<|reason_end|>")),
        ("x", ["[THINK]", "[/THINK]"], ("[THINK]", "[/THINK]")),
        ("x", ["<|thought>", "<thought|>"], ("<|thought>", "<thought|>")),
        ("{{ '◁think▷' if false }}{{ '◁/think▷' if false }}", [], ("◁think▷", "◁/think▷")),
        ("x", ["<think>"], ("<think>", "</think>")),
        ("x", ["<reason>"], None),
        ("x", ["<tool_call>", "</tool_call>"], None),
    ],
)
def test_marks_are_found_by_name_if_the_template_writes_no_thought(
    template: str, controls: list[str], marks: tuple[str, str] | None
) -> None:
    form = dialect_of(template, ChatTemplate(template, {}).render, controls).thinking
    assert (form and (form.opening, form.closing)) == marks
    assert form is None or not form.is_used


def test_mark_at_the_end_of_the_prompt_is_found() -> None:
    template = tiny_models.CHATML_TEMPLATE.replace("assistant\n' }}", "assistant\n<muse>\n' }}")
    form = dialect_of(template, ChatTemplate(template, {}).render, ["<muse>", "</muse>"]).thinking
    assert form == ThinkingForm("<muse>", "</muse>", is_begun=True)


@pytest.mark.parametrize("template", [tiny_models.CHATML_TEMPLATE, HERMES_TEMPLATE])
def test_a_template_without_thinking_has_no_form(template: str) -> None:
    found = ChatTemplate(template, {})
    assert dialect_of(template, found.render, ["<|im_end|>"], found.names).thinking is None


@pytest.mark.parametrize(
    "template",
    [
        # Variables that sound like it and do nothing, or are only the template's own.
        "{% set reasoning_note = 'x' %}{{ reasoning_note }}<think></think>",
        "{% if keep_thinking %}{% endif %}<think></think>",
        "{{ thinking_language }}<think></think>",
        "{{ reasoning_effort and '' }}<think></think>",
    ],
)
def test_variable_without_effect_is_ignored(template: str) -> None:
    source = template + tiny_models.CHATML_TEMPLATE
    found = ChatTemplate(source, {})
    form = dialect_of(source, found.render, [], found.names).thinking
    assert form is not None
    assert not form.is_used


def test_switch_with_a_negative_name_is_inverted() -> None:
    source = tiny_models.CHATML_TEMPLATE.replace(
        "assistant\n' }}", "assistant\n<think>' + ('</think>' if skip_thinking else '') }}"
    )
    found = ChatTemplate(source, {})
    form = dialect_of(source, found.render, ["<think>", "</think>"], found.names).thinking
    assert form is not None
    assert (form.on, form.off) == ({"skip_thinking": False}, {"skip_thinking": True})


@pytest.mark.parametrize(
    ("style", "requested", "effort"),
    [
        ("qwen", None, "medium"),
        ("qwen", "low", "low"),
        ("qwen", "high", "medium"),
        ("qwen", "xhigh", "xhigh"),
        ("qwen", "max", "xhigh"),
        ("harmony", None, "medium"),
        ("harmony", "high", "high"),
        ("harmony", "max", "high"),
        ("hunyuan", None, "low"),
        ("hunyuan", "medium", "low"),
        ("hunyuan", "minimal", "low"),
        ("deepseek", None, "medium"),
        ("deepseek", "low", "medium"),
        ("deepseek", "xhigh", "high"),
        ("nemotron", None, "medium"),
        ("glm", "high", None),
    ],
)
def test_effort_maps_to_the_nearest_one_that_is_not_stronger(
    style: str, requested: str | None, effort: str | None
) -> None:
    assert nearest_effort(form_of(style), requested) == effort


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('never') }}{{ enable_thinking }}<think></think>",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
        "{{ enable_thinking }}{{ reasoning_effort }}{{ thinking_budget }}<think></think>"
        "<arg_key><tool_call>[TOOL_CALLS]<start_function_call><minimax:tool_call>",
    ],
)
def test_a_hostile_template_costs_no_more_than_two_renderings_in_all(source: str) -> None:
    template = ChatTemplate(source, {}, limit_s=0.1)
    render = template.probing_render()
    began_at = time.thread_time()
    dialect = dialect_of(template.source, render, ["<think>", "</think>"], template.names)
    assert not ends_of_turn(Probe(render, ["<think>"], template.names), dialect)
    assert time.thread_time() - began_at < 0.5
    assert dialect.thinking is None or not dialect.thinking.is_used


def test_probing_takes_few_renderings() -> None:
    template = ChatTemplate(QWEN, {})
    count = 0

    def render(*arguments: object) -> str:
        nonlocal count
        count += 1
        return template.render(*arguments)  # type: ignore[arg-type]

    dialect_of(QWEN, render, ["<think>", "</think>"], template.names)  # type: ignore[arg-type]
    assert count < 60
