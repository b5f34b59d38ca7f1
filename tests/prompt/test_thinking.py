"""Thinking, from what the client asks to the template's switch and what the prompt then begins."""

from dataclasses import replace
from typing import Any

import pytest

from pensieve.api.request import Conversation, decode
from pensieve.api.signatures import signature_of
from pensieve.dialects.dialect import ThinkingForm
from pensieve.prompt.plan import AnswerPlan
from pensieve.prompt.render import Prompt, PromptRenderer
from tests.prompt.chat_models import chat_model, dialect_of_template

# As Qwen3's: thoughts after the last question stay, an empty one where the model is not to think.
SWITCHED = """\
{%- set ns = namespace(last=-1) %}
{%- for message in messages %}{% if message.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.role == 'assistant' and message.reasoning_content and loop.index0 > ns.last %}
{{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}
{%- endif %}
{{- message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}
{%- endif %}"""
# As R1's: always in thought.
ALWAYS = SWITCHED.replace(
    "{%- if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}",
    "{{- '<think>\\n' }}",
)
TOOL = {"name": "t", "input_schema": {"type": "object"}}
ENABLED = {"type": "enabled", "budget_tokens": 1024}


def rendered(template: str, *messages: dict[str, Any], **fields: Any) -> tuple[str, Prompt]:
    model = chat_model("qwen", template)
    dialect = dialect_of_template(template, model)
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}, *messages], **fields}
    prompt = PromptRenderer(model, dialect).render(decode(Conversation, body))
    marks = dialect.marks(model.controls)
    return "".join(map(model.detokenizer((), marks).feed, prompt.tokens)), prompt


def planned(template: str, **fields: Any) -> AnswerPlan:
    return rendered(template, **fields)[1].plan


@pytest.mark.parametrize(
    ("thinking", "is_on"),
    [
        (None, False),
        ({"type": "disabled"}, False),
        ({"type": "between_tools"}, False),
        ({"type": "adaptive"}, True),
        (ENABLED, True),
    ],
)
def test_the_switch_is_what_the_client_asks(thinking: Any, is_on: bool) -> None:
    text, prompt = rendered(SWITCHED, thinking=thinking)
    assert text.endswith("<think>\n\n</think>\n\n") == (not is_on)
    assert prompt.plan.form.may_think == is_on
    assert not prompt.plan.form.is_in_thought


def test_a_model_that_must_use_a_tool_does_not_think_first() -> None:
    for choice in ({"type": "any"}, {"type": "tool", "name": "t"}):
        made = planned(SWITCHED, thinking=ENABLED, tools=[TOOL], tool_choice=choice)
        assert not made.form.may_think


def test_a_model_that_always_thinks_begins_in_a_thought() -> None:
    for thinking in (None, {"type": "disabled"}, ENABLED):
        assert planned(ALWAYS, thinking=thinking).form.is_in_thought


def test_behind_a_prefill_there_is_no_thought() -> None:
    begun = {"role": "assistant", "content": "Well"}
    form = rendered(ALWAYS, begun, thinking=ENABLED)[1].plan.form
    assert (form.is_in_thought, form.may_think) == (False, False)


def test_a_model_that_does_not_think_takes_the_field_and_passes_it_over() -> None:
    template = SWITCHED.replace("think", "thunk")
    model = chat_model("llama", template)
    assert dialect_of_template(template, model).thinking is None
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "thinking": ENABLED}
    plan = PromptRenderer(model).render(decode(Conversation, body)).plan
    assert plan.grammar is None
    assert not plan.form.is_in_thought


def test_the_budget_closes_the_thought() -> None:
    for template in (SWITCHED, ALWAYS):
        grammar = planned(template, thinking=ENABLED).grammar
        assert grammar is not None
        assert "[max_tokens=1024]" in grammar.lark
    assert planned(SWITCHED, thinking={"type": "adaptive"}).grammar is None


@pytest.mark.parametrize(
    ("thinking", "hides"),
    [
        (ENABLED | {"display": "omitted"}, True),
        ({"type": "adaptive", "display": "omitted"}, True),
        ({"type": "adaptive", "display": "summarized"}, False),
        (ENABLED, False),
        (None, False),
    ],
)
def test_a_client_may_not_want_to_see_thoughts(thinking: Any, hides: bool) -> None:
    assert planned(SWITCHED, thinking=thinking).hides_thoughts == hides


@pytest.mark.parametrize(
    "block",
    [
        {"type": "thinking", "thinking": "zebra", "signature": "x"},
        {"type": "thinking", "thinking": "", "signature": signature_of("zebra", carries_text=True)},
    ],
)
def test_thoughts_between_calls_are_shown_to_the_model_again(block: dict[str, Any]) -> None:
    use = {"type": "tool_use", "id": "a", "name": "t", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "a", "content": "done"}
    text, _ = rendered(
        SWITCHED.replace(
            "message.role == 'user'",
            "'<tool_result' not in message.content and message.role == 'user'",
        ),
        {"role": "assistant", "content": [block, use]},
        {"role": "user", "content": [result]},
        thinking={"type": "adaptive"},
    )
    assert "<think>\nzebra\n</think>\n\n<tool_call>" in text


def test_effort_reaches_a_template_that_knows_it() -> None:
    template = SWITCHED.replace("{%- set ns", "{{- reasoning_effort }}{%- set ns", 1)
    model = chat_model("qwen", template)
    dialect = dialect_of_template(template, model)
    dialect = replace(dialect, thinking=ThinkingForm(effort="reasoning_effort"))
    for effort, word in (("low", "low"), ("max", "high"), ("weird", "")):
        body = {
            "model": "m",
            "messages": [{"role": "user", "content": "hi"}],
            "output_config": {"effort": effort},
        }
        prompt = PromptRenderer(model, dialect).render(decode(Conversation, body))
        text = "".join(map(model.detokenizer().feed, prompt.tokens))
        assert text.startswith(f"{word}user" if word else "user")
