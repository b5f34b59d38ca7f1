"""Chat templates like those of thinking families, each with a tokenizer and the expected results.

Written for these tests from descriptions of the families; none is a copy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from tokenizers import AddedToken

from pensieve.dialects.dialect import Dialect, Variables
from pensieve.dialects.probing.probe import Probe
from pensieve.dialects.probing.turn_ends import ends_of_turn
from pensieve.dialects.registry import dialect_of
from pensieve.models.tokenizer.chat_template import ChatTemplate
from pensieve.models.tokenizer.chat_tokenizer import ModelTokenizer
from tests.support import tiny_models


def efforts_of(variable: str, *accepted: str) -> dict[str, Variables]:
    return {value: {variable: value} for value in accepted}


SWITCH: dict[str, Variables] = {
    "on": {"enable_thinking": True},
    "off": {"enable_thinking": False},
}


@dataclass(frozen=True)
class Style:
    """A template, the tokens of its vocabulary, and what probing must find."""

    template: str
    tokens: Sequence[str]
    marks: tuple[str, str]
    ends: Sequence[str]
    message_field: str = "reasoning_content"
    on: Variables = field(default_factory=dict)
    off: Variables = field(default_factory=dict)
    efforts: Mapping[str, Variables] = field(default_factory=dict)
    is_begun: bool = False

    @cached_property
    def chat_template(self) -> ChatTemplate:
        return ChatTemplate(self.template, {"bos_token": "", "eos_token": ""})

    @cached_property
    def tokenizer(self) -> ModelTokenizer:
        built = tiny_models.byte_level_tokenizer(is_qwen=True)
        built.add_special_tokens([AddedToken(text, special=True) for text in self.tokens])
        return ModelTokenizer(built, self.chat_template, stop_tokens=())

    @cached_property
    def dialect(self) -> Dialect:
        source, names = self.chat_template.source, self.chat_template.names
        return dialect_of(source, self.tokenizer.render, self.tokenizer.controls, names)

    @property
    def found_ends(self) -> frozenset[str]:
        probe = Probe(self.tokenizer.render, self.tokenizer.controls, self.chat_template.names)
        return ends_of_turn(probe, self.dialect)


CHATML = ["<|im_start|>", "<|im_end|>"]
# Thinks unless disabled; three efforts, by default the strongest; one of them adds no text.
QWEN = """\
{%- set effort = reasoning_effort | default('xhigh') %}
{%- if effort not in ['low', 'medium', 'xhigh'] %}\
{{ raise_exception('no such effort: ' ~ effort) }}{% endif %}
{%- set thinks = enable_thinking is not defined or enable_thinking %}
{%- set hint = {'low': 'Think briefly.', 'medium': '', 'xhigh': 'Think long.'}[effort] if thinks \
else '' %}
{%- set told = messages[0].content if messages[0].role == 'system' else '' %}
{%- if told or hint %}{{ '<|im_start|>system\\n' + hint + told + '<|im_end|>\\n' }}{% endif %}
{%- for message in messages if message.role != 'system' or not loop.first %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.reasoning_content %}\
{{ '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}{% endif %}
{{- message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}\
{{ '<|im_start|>assistant\\n<think>\\n' + ('' if thinks else '\\n</think>\\n\\n') }}{% endif %}"""
# Takes a number of tokens; 0 disables thinking.
SEED = """\
{%- if thinking_budget is defined %}\
{{ '<seed:bos>system\\nYour budget: ' ~ thinking_budget ~ '<seed:eos>' }}{% endif %}
{%- for message in messages %}
{{- '<seed:bos>' + message.role + '\\n' }}
{%- if message.reasoning_content %}\
{{ '<seed:think>' + message.reasoning_content + '</seed:think>' }}{% endif %}
{{- message.content + '<seed:eos>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<seed:bos>assistant\\n' }}
{%- if thinking_budget == 0 %}{{ '<seed:think>none</seed:think>' }}{% endif %}{% endif %}"""
# A switch with text values; a turn without a thought has the closing mark alone.
MINIMAX = """\
{%- for message in messages %}
{{- ']~b]' + ('ai' if message.role == 'assistant' else message.role) + '\\n' }}
{%- if message.role == 'assistant' %}{{ ('<mm:think>' + message.reasoning_content \
if message.reasoning_content else '') + '</mm:think>' }}{% endif %}
{{- message.content + '[e~[\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ ']~b]ai\\n' }}
{%- if thinking_mode == 'enabled' %}{{ '<mm:think>' }}{% elif thinking_mode == 'disabled' %}\
{{ '</mm:think>' }}{% endif %}{% endif %}"""
# Thoughts as blocks of the content; one effort, and one value that disables.
MISTRAL = """\
{%- if reasoning_effort is defined and reasoning_effort not in ['none', 'high'] %}\
{{ raise_exception('no') }}{% endif %}
{{- '[MODEL_SETTINGS]' + (reasoning_effort or 'none') + '[/MODEL_SETTINGS]' }}
{%- for message in messages %}
{%- if message.role == 'assistant' %}
{%- if message.content is string %}{{ message.content }}
{%- else %}{% for block in message.content %}{{ '[THINK]' + block.thinking + '[/THINK]' \
if block.type == 'thinking' else block.text }}{% endfor %}{% endif %}
{{- '</s>' }}
{%- else %}{{ '[INST]' + message.content + '[/INST]' }}{% endif %}
{%- endfor %}"""
# The template composes the mark; two efforts, and one value that disables.
HUNYUAN = """\
{%- set name = ':opensource' %}
{%- if reasoning_effort is not defined %}{% set reasoning_effort = 'no_think' %}
{%- elif reasoning_effort not in ['no_think', 'low', 'high'] %}{{ raise_exception('no') }}\
{% endif %}
{{- '<|mode|>' + reasoning_effort }}
{%- for message in messages %}
{%- if message.role == 'assistant' %}{{ '<|bot|><think%s>' % name + (message.reasoning_content \
or '') + '</think%s>' % name + message.content + '<|eos|>' }}
{%- else %}{{ '<|human|>' + message.content }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|bot|><think%s>' % name + ('</think%s>' % name \
if reasoning_effort == 'no_think' else '') }}{% endif %}"""
# No token ends a turn; the next turn's token begins.
GLM = """\
{%- for message in messages %}
{{- '<|observation|>' if message.role == 'tool' else '<|' + message.role + '|>' }}
{%- if message.role == 'assistant' %}\
{{ '\\n<think>' + (message.reasoning_content or '') + '</think>\\n' }}{% endif %}
{{- message.content }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' + ('\\n<think></think>' \
if enable_thinking is defined and not enable_thinking else '') }}{% endif %}"""
# The opening mark is a token and a text; a text in the system part enables thinking.
GEMMA = """\
{{- '<|turn>system\\n<|think|><turn|>\\n' if enable_thinking }}
{%- for message in messages %}
{{- '<|turn>' + ('model' if message.role == 'assistant' else message.role) + '\\n' }}
{%- if message.reasoning_content %}\
{{ '<|channel>thought\\n' + message.reasoning_content + '\\n<channel|>' }}{% endif %}
{{- message.content + '<turn|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|turn>model\\n' }}{% endif %}"""
# Prints any value.
HARMONY = """\
{{- '<|start|>system<|message|>Reasoning: ' + (reasoning_effort or 'medium') + '<|end|>' }}
{%- for message in messages %}
{%- if message.role == 'assistant' %}
{%- if message.thinking %}\
{{ '<|start|>assistant<|channel|>analysis<|message|>' + message.thinking + '<|end|>' }}{% endif %}
{{- '<|start|>assistant<|channel|>final<|message|>' + message.content + ('<|return|>' \
if loop.last and not add_generation_prompt else '<|end|>') }}
{%- else %}{{ '<|start|>' + message.role + '<|message|>' + message.content + '<|end|>' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"""
# Marks around the answer as well.
SKY = """\
{%- for message in messages %}
{{- '<|head|>' + message.role + '<|/head|>' }}
{%- if message.role == 'assistant' %}
{%- if message.reasoning %}\
{{ '<|begin_of_thought|>\\n' + message.reasoning + '\\n<|end_of_thought|>\\n\\n' }}{% endif %}
{{- '<|begin_of_solution|>\\n' }}
{%- endif %}
{{- message.content + '<|eot|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|head|>assistant<|/head|>' }}{% endif %}"""
COHERE = """\
{%- for message in messages %}
{{- '<|START_OF_TURN_TOKEN|>' + ('<|CHATBOT_TOKEN|>' if message.role == 'assistant' \
else '<|USER_TOKEN|>') }}
{%- if message.role == 'assistant' %}
{%- if message.thinking %}{{ '<|START_THINKING|>' + message.thinking + '<|END_THINKING|>' }}\
{% endif %}
{{- '<|START_RESPONSE|>' + message.content + '<|END_RESPONSE|>' }}
{%- else %}{{ message.content }}{% endif %}
{{- '<|END_OF_TURN_TOKEN|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}
{%- if reasoning is defined and not reasoning %}{{ '<|START_THINKING|><|END_THINKING|>' }}\
{% endif %}{% endif %}"""
# Two switches: thinking, and low effort.
NEMOTRON = """\
{%- if low_effort %}{{ '<|im_start|>system\\nBe quick.<|im_end|>\\n' }}{% endif %}
{%- for message in messages %}\
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' + ('<think></think>' \
if enable_thinking is false else '<think>\\n') }}{% endif %}"""
# Ignores unknown fields.
DEEPSEEK = """\
{%- set notes = {'high': 'Think hard.', 'max': 'Think harder.'} %}
{{- notes[reasoning_effort] if thinking and reasoning_effort in notes }}
{%- for message in messages %}
{%- if message.role == 'assistant' %}{{ '<|Assistant|>' + ('<think>' + message.reasoning_content \
if message.reasoning_content and thinking else '') + '</think>' + message.content + '<|eos|>' }}
{%- else %}{{ '<|User|>' + message.content }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|Assistant|>' + ('<think>' if thinking else '</think>') }}\
{% endif %}"""

THINK = ("<think>", "</think>")
BUDGETS: Mapping[str, Variables] = {
    "low": {"thinking_budget": 1024},
    "medium": {"thinking_budget": 4096},
    "high": {"thinking_budget": 16384},
}
STYLES = {
    "qwen": Style(
        *(QWEN, [*CHATML, *THINK], THINK, ["<|im_end|>"]),
        **SWITCH,
        efforts=efforts_of("reasoning_effort", "low", "medium", "xhigh"),
        is_begun=True,
    ),
    "seed": Style(
        *(SEED, ["<seed:bos>", "<seed:eos>", "<seed:think>", "</seed:think>"]),
        *(("<seed:think>", "</seed:think>"), ["<seed:eos>"]),
        off={"thinking_budget": 0},
        efforts=BUDGETS,
    ),
    "minimax": Style(
        *(MINIMAX, ["]~b]", "[e~[", "<mm:think>", "</mm:think>"]),
        *(("<mm:think>", "</mm:think>"), ["[e~["]),
        on={"thinking_mode": "enabled"},
        off={"thinking_mode": "disabled"},
    ),
    "mistral": Style(
        *(MISTRAL, ["[INST]", "[/INST]", "</s>", "[THINK]", "[/THINK]"]),
        *(("[THINK]", "[/THINK]"), ["</s>", "[INST]"]),
        on={"reasoning_effort": "high"},
        off={"reasoning_effort": "none"},
    ),
    "hunyuan": Style(
        HUNYUAN,
        [
            "<|mode|>",
            "<|bot|>",
            "<|human|>",
            "<|eos|>",
            "<think:opensource>",
            "</think:opensource>",
        ],
        *(("<think:opensource>", "</think:opensource>"), ["<|eos|>", "<|bot|>", "<|human|>"]),
        off={"reasoning_effort": "no_think"},
        efforts=efforts_of("reasoning_effort", "low", "high"),
    ),
    "glm": Style(
        *(GLM, ["<|user|>", "<|assistant|>", "<|observation|>", "<|system|>", *THINK]),
        *(THINK, ["<|user|>", "<|assistant|>", "<|observation|>"]),
        **SWITCH,
    ),
    "gemma": Style(
        *(GEMMA, ["<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|think|>"]),
        *(("<|channel>thought", "<channel|>"), ["<turn|>"]),
        **SWITCH,
    ),
    "harmony": Style(
        HARMONY,
        ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>"],
        *(("<|channel|>analysis<|message|>", "<|end|>"), ["<|return|>"]),
        message_field="thinking",
        efforts=efforts_of("reasoning_effort", "low", "medium", "high"),
    ),
    "sky": Style(
        SKY,
        *(["<|head|>", "<|/head|>", "<|eot|>", "<|begin_of_thought|>", "<|end_of_thought|>"],),
        *(("<|begin_of_thought|>", "<|end_of_thought|>"), ["<|eot|>"]),
        message_field="reasoning",
    ),
    "cohere": Style(
        COHERE,
        [
            *("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|CHATBOT_TOKEN|>"),
            *("<|USER_TOKEN|>", "<|START_THINKING|>", "<|END_THINKING|>"),
            *("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
        ],
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        ["<|END_OF_TURN_TOKEN|>", "<|END_RESPONSE|>"],
        message_field="thinking",
        on={"reasoning": True},
        off={"reasoning": False},
    ),
    "nemotron": Style(
        *(NEMOTRON, [*CHATML, *THINK], THINK, ["<|im_end|>"]),
        **SWITCH,
        efforts={"low": {"low_effort": True}, "medium": {}},
        is_begun=True,
    ),
    "deepseek": Style(
        *(DEEPSEEK, ["<|User|>", "<|Assistant|>", "<|eos|>", *THINK], THINK),
        ["<|User|>", "<|Assistant|>", "<|eos|>"],
        on={"thinking": True},
        off={"thinking": False},
        efforts={"medium": {}, **efforts_of("reasoning_effort", "high", "max")},
    ),
}
