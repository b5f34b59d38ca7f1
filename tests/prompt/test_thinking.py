"""Map thinking options to the template's variables and to the beginning of the prompt."""

from typing import Any

import pytest

from pensieve.api.messages.request import Conversation, CountTokensRequest, MessagesRequest, decode
from pensieve.api.messages.signatures import signature_of
from pensieve.dialects.dialect import ThinkingForm
from pensieve.prompt.constraints import AnswerConstraints
from pensieve.prompt.render import Prompt, PromptRenderer
from pensieve.prompt.thinking import thinking_variables
from tests.prompt.chat_models import chat_model, dialect_of_template
from tests.prompt.thinking_styles import STYLES
from tests.support import tiny_models

# Like Qwen3's: thoughts after the last question stay; an empty one disables thinking.
SWITCHED = """\
{%- set ns = namespace(last=-1) %}
{%- for message in messages %}{% if message.role == 'user' %}{% set ns.last = loop.index0 %}\
{% endif %}{% endfor %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.role == 'assistant' and message.reasoning_content and loop.index0 > ns.last %}
{{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}
{%- endif %}
{{- message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}\
{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}
{%- endif %}"""
# Like R1's: always begins in a thought.
ALWAYS = SWITCHED.replace(
    "{%- if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n"
    "</think>\\n\\n' }}{% endif %}",
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


def constraints_of(template: str, **fields: Any) -> AnswerConstraints:
    return rendered(template, **fields)[1].constraints


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
def test_thinking_switch_follows_the_request(thinking: Any, is_on: bool) -> None:
    text, prompt = rendered(SWITCHED, thinking=thinking)
    assert text.endswith("<think>\n\n</think>\n\n") == (not is_on)
    assert prompt.constraints.form.may_think == is_on
    assert not prompt.constraints.form.is_in_thought


def test_required_tool_use_disables_thinking() -> None:
    for choice in ({"type": "any"}, {"type": "tool", "name": "t"}):
        constraints = constraints_of(SWITCHED, thinking=ENABLED, tools=[TOOL], tool_choice=choice)
        assert not constraints.form.may_think


def test_a_model_that_always_thinks_begins_in_a_thought() -> None:
    for thinking in (None, {"type": "disabled"}, ENABLED):
        assert constraints_of(ALWAYS, thinking=thinking).form.is_in_thought


def test_no_thought_follows_a_prefill() -> None:
    begun = {"role": "assistant", "content": "Well"}
    form = rendered(ALWAYS, begun, thinking=ENABLED)[1].constraints.form
    assert (form.is_in_thought, form.may_think) == (False, False)


def test_model_without_thinking_ignores_the_field() -> None:
    template = tiny_models.CHATML_TEMPLATE
    model = chat_model("llama", template)
    assert dialect_of_template(template, model).thinking is None
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "thinking": ENABLED}
    constraints = PromptRenderer(model).render(decode(Conversation, body)).constraints
    assert constraints.grammar is None
    assert not constraints.form.is_in_thought


def test_the_budget_closes_the_thought() -> None:
    for template in (SWITCHED, ALWAYS):
        grammar = constraints_of(template, thinking=ENABLED).grammar
        assert grammar is not None
        assert "[max_tokens=1024]" in grammar.lark
    assert constraints_of(SWITCHED, thinking={"type": "adaptive"}).grammar is None


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
def test_client_can_hide_thoughts(thinking: Any, hides: bool) -> None:
    assert constraints_of(SWITCHED, thinking=thinking).hides_thoughts == hides


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


any_style = pytest.mark.parametrize("name", STYLES)
EFFORTS = (None, "low", "medium", "high", "xhigh", "max", "weird", 7)
WISHES = (None, {"type": "disabled"}, {"type": "adaptive"}, ENABLED, {"type": "between_tools"})


def prompt_of(name: str, **fields: Any) -> Prompt:
    """Return the prompt of a request for an answer of 1000 tokens by default."""
    style = STYLES[name]
    body = {
        "model": "m",
        "max_tokens": 1000,
        "system": "granite",
        "messages": [{"role": "user", "content": "hi"}],
        **fields,
    }
    renderer = PromptRenderer(style.tokenizer, style.dialect, context_tokens=8192)
    call = decode(MessagesRequest, body)
    return renderer.render(call, answer_tokens=call.max_tokens)


def wish(thinking: Any = None, effort: Any = None) -> dict[str, Any]:
    return {"thinking": thinking, "output_config": {"effort": effort}}


@any_style
@pytest.mark.parametrize("thinking", WISHES)
def test_no_effort_is_rendered_that_the_template_refuses(name: str, thinking: Any) -> None:
    for effort in EFFORTS:
        assert prompt_of(name, **wish(thinking, effort)).rendered.text


ADAPTIVE = {"type": "adaptive"}


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("qwen", wish(ADAPTIVE, "low"), "Think briefly."),
        ("qwen", wish(ADAPTIVE, "max"), "Think long."),
        ("qwen", wish(ENABLED | {"budget_tokens": 1024}), "Think briefly."),
        ("seed", wish(ENABLED | {"budget_tokens": 4096}), "Your budget: 1024<seed:eos>"),
        ("seed", wish(ENABLED | {"budget_tokens": 4097}), "Your budget: 4096<seed:eos>"),
        ("seed", wish(ENABLED | {"budget_tokens": 16384}), "Your budget: 4096<seed:eos>"),
        ("seed", wish(ENABLED | {"budget_tokens": 16385}), "Your budget: 16384<seed:eos>"),
        ("seed", wish(ENABLED, "weird"), "Your budget: 1024<seed:eos>"),
        ("seed", wish(ADAPTIVE, "low"), "Your budget: 1024<seed:eos>"),
        ("seed", wish(ADAPTIVE), "Your budget: 4096<seed:eos>"),
        ("seed", wish(ADAPTIVE, "max"), "Your budget: 16384<seed:eos>"),
        ("seed", wish(None), "Your budget: 0<seed:eos>"),
        ("mistral", wish(ADAPTIVE, "low"), "[MODEL_SETTINGS]high"),
        ("mistral", wish(None, "high"), "[MODEL_SETTINGS]none"),
        ("hunyuan", wish(ADAPTIVE, "max"), "<|mode|>high"),
        ("hunyuan", wish({"type": "disabled"}), "<|mode|>no_think"),
        ("gemma", wish(ADAPTIVE), "<|think|>"),
        ("harmony", wish(None), "Reasoning: medium"),
        ("harmony", wish(None, "high"), "Reasoning: high"),
        ("harmony", wish({"type": "disabled"}), "Reasoning: low"),
        ("nemotron", wish(ADAPTIVE, "low"), "Be quick."),
        ("deepseek", wish(ADAPTIVE, "max"), "Think harder."),
    ],
)
def test_requested_effort_maps_to_the_templates_values(
    name: str, fields: Any, expected: str
) -> None:
    assert expected in prompt_of(name, **fields).rendered.text


def test_disabled_thought_without_a_switch_has_the_weakest_effort() -> None:
    form = ThinkingForm(efforts={"minimal": {"effort": 1}, "low": {"effort": 2}})
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    disabled = decode(Conversation, body | {"thinking": {"type": "disabled"}})
    assert thinking_variables(form, disabled) == {"effort": 1}


@pytest.mark.parametrize("effort", [None, "medium", "high", "weird"])
def test_strongest_effort_is_not_the_default(effort: Any) -> None:
    """Qwen3.8's "medium" adds nothing: without an effort, the template requests the strongest."""
    assert "Think" not in prompt_of("qwen", **wish(ADAPTIVE, effort)).rendered.text


@pytest.mark.parametrize(
    ("name", "off", "on"),
    [
        ("qwen", "<think>\n\n</think>\n\n", "<think>\n"),
        ("seed", "<seed:think>none</seed:think>", "assistant\n"),
        ("minimax", "</mm:think>", "<mm:think>"),
        ("hunyuan", "</think:opensource>", "<think:opensource>"),
        ("glm", "<think></think>", "<|assistant|>"),
        ("cohere", "<|END_THINKING|>", "<|CHATBOT_TOKEN|>"),
        ("nemotron", "<think></think>", "<think>\n"),
        ("deepseek", "</think>", "<think>"),
    ],
)
def test_thought_state_is_read_from_the_end_of_the_prompt(name: str, off: str, on: str) -> None:
    none, thought = prompt_of(name, **wish(None)), prompt_of(name, **wish(ADAPTIVE))
    assert none.rendered.text.endswith(off)
    assert thought.rendered.text.endswith(on)
    assert (none.constraints.form.is_in_thought, none.constraints.form.may_think) == (False, False)
    form = thought.constraints.form
    assert (form.is_in_thought, form.may_think) == (
        (True, False) if on.strip() == STYLES[name].marks[0] else (False, True)
    )


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        (wish(ADAPTIVE, "minimal"), 250),
        (wish(ADAPTIVE, "low"), 250),
        (wish(ADAPTIVE, "medium"), 500),
        (wish(ADAPTIVE), 750),
        (wish(ADAPTIVE, "max"), 750),
        (wish(ENABLED) | {"max_tokens": 8000}, 1024),
        (wish(ENABLED) | {"max_tokens": 1100}, 825),
        (wish(ADAPTIVE, "low") | {"max_tokens": 400}, 100),
        (wish(ADAPTIVE) | {"max_tokens": 1}, 1),
    ],
)
def test_thinking_budget_leaves_tokens_for_the_answer(fields: Any, tokens: int) -> None:
    grammar = prompt_of("qwen", **fields).constraints.grammar
    assert grammar is not None
    assert f"[max_tokens={tokens}]" in grammar.lark


def test_thinking_budget_respects_the_remaining_context() -> None:
    long = [{"role": "user", "content": "x" * 7700}]
    prompt = prompt_of("qwen", **wish(ADAPTIVE), max_tokens=8000, messages=long)
    left = 8192 - len(prompt.tokens)
    assert prompt.constraints.grammar is not None
    assert f"[max_tokens={left * 3 // 4}]" in prompt.constraints.grammar.lark


def test_model_that_always_thinks_has_a_budget_by_default() -> None:
    grammar = prompt_of("harmony", **wish(None)).constraints.grammar
    assert grammar is not None
    assert "[max_tokens=750]" in grammar.lark


def test_disabled_thinking_needs_no_grammar() -> None:
    """Gemma's prompt does not show that there is no thought: a grammar would slow every answer."""
    assert prompt_of("gemma", **wish(None)).constraints.grammar is None
    assert prompt_of("gemma", **wish(ADAPTIVE)).constraints.grammar is not None


def test_counting_tokens_sets_no_budget() -> None:
    style = STYLES["qwen"]
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "thinking": ADAPTIVE}
    renderer = PromptRenderer(style.tokenizer, style.dialect)
    assert renderer.render(decode(CountTokensRequest, body)).constraints.grammar is None


@pytest.mark.parametrize("name", ["qwen", "cohere", "sky", "harmony"])
def test_earlier_thought_is_between_its_marks(name: str) -> None:
    style = STYLES[name]
    answer = [
        {"type": "thinking", "thinking": "zebra", "signature": "x"},
        {"type": "text", "text": "copper"},
    ]
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": answer},
        {"role": "user", "content": "more"},
    ]
    text = prompt_of(name, messages=turns).rendered.text
    before, _, after = text.partition("zebra")
    assert before.rstrip().endswith(style.marks[0])
    assert after.lstrip().startswith(style.marks[1])


@any_style
def test_the_next_prompt_begins_with_this_one_up_to_its_last_boundary(name: str) -> None:
    turns = [{"role": "user", "content": "hi"}]
    later = [*turns, {"role": "assistant", "content": "yes"}, {"role": "user", "content": "more"}]
    for thinking in (None, ADAPTIVE):
        first = prompt_of(name, **wish(thinking, "low"), messages=turns)
        second = prompt_of(name, **wish(thinking, "low"), messages=later)
        shared = max(first.boundaries, default=0)
        assert first.tokens[:shared] == second.tokens[:shared]
        assert shared > 0
