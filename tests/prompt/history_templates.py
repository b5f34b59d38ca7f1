"""Chat templates of families for conversations with tools, after their documentation."""

# ruff: noqa: RUF001 -- DeepSeek's marks contain these characters

from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from pensieve.dialects.dialect import Dialect
from pensieve.dialects.registry import dialect_of
from pensieve.models.tokenizer.chat_template import ChatTemplate
from pensieve.models.tokenizer.chat_tokenizer import ModelTokenizer
from tests.prompt.chat_models import HERMES_TEMPLATE, MISTRAL_CONTROLS, MISTRAL_TEMPLATE


@dataclass(frozen=True)
class Family:
    template: str
    controls: list[str]


_GEMMA_CONTROLS = [
    *("<|turn>", "<turn|>", "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>"),
    *("<|tool_response>", "<tool_response|>", '<|"|>', "<|channel>", "<channel|>"),
]
_GEMMA_MACROS = """\
{%- macro call(c) %}{{ '<|tool_call>call:' + c.function.name + '{' }}
{%- for k, v in c.function.arguments.items() %}{{ k + ':<|"|>' + v + '<|"|>' }}\
{{ '' if loop.last else ',' }}{% endfor %}{{ '}<tool_call|>' }}{% endmacro %}
{%- macro response(name, r) %}{{ '<|tool_response>response:' + name + '{value:<|"|>' + r.content \
+ '<|"|>}<tool_response|>' }}{% endmacro %}
{%- for tool in tools \
or [] %}<|tool>{{ tool.function.name }}: {{ tool.function.description }}<tool|>{% endfor %}
{%- set ns = namespace(open=false) %}
"""
# Calls, the results that directly follow, then the text; a model's turn with results stays open.
GEMMA_AFTER = (
    _GEMMA_MACROS
    + """\
{%- for m in messages %}
{%- if m.role == 'assistant' %}
{%- if not ns.open %}{{ '<|turn>model\\n' }}{% endif %}
{%- set ns.open = false %}
{%- for c in m.tool_calls or [] %}{{ call(c) }}{% endfor %}
{%- set scan = namespace(stopped=false) %}
{%- for r in messages[loop.index:] if m.tool_calls %}
{%- if r.role != 'tool' %}{% set scan.stopped = true %}{% elif not scan.stopped %}
{%- set found = namespace(name=r.name) %}
{%- for c in m.tool_calls if c.id == r.tool_call_id %}{% set found.name = c.function.name %}\
{% endfor %}
{{- response(found.name, r) }}{% set ns.open = true %}{% endif %}
{%- endfor %}
{{- m.content | trim }}
{%- if m.tool_calls and not ns.open %}{{ '<|tool_response>' }}{% elif not ns.open or m.content %}\
{{ '<turn|>\\n' }}{% endif %}
{%- elif m.role != 'tool' %}{{ '<|turn>' + m.role + '\\n' + m.content | trim + '<turn|>\\n' }}\
{% set ns.open = false %}{% endif %}
{%- endfor %}
{%- if add_generation_prompt and not ns.open %}{{ '<|turn>model\\n' }}{% endif %}"""
)
# Each call with its result, found by the id.
GEMMA_BETWEEN = (
    _GEMMA_MACROS
    + """\
{%- for m in messages %}
{%- if m.role == 'assistant' %}{{ '<|turn>model\\n' }}{% set ns.open = false %}
{%- for c in m.tool_calls or [] %}{{ call(c) }}
{%- set found = namespace(any=false) %}
{%- for r in messages if r.role == 'tool' and r.tool_call_id == c.id %}\
{{ response(c.function.name, r) }}{% set found.any = true %}{% set ns.open = true %}{% endfor %}
{%- if not found.any %}{{ '<|tool_response>' }}{% endif %}
{%- endfor %}
{{- m.content }}{% if m.content %}{{ '<turn|>\\n' }}{% endif %}
{%- elif m.role != 'tool' %}{{ '<|turn>' + m.role + '\\n' + m.content + '<turn|>\\n' }}\
{% set ns.open = false %}{% endif %}
{%- endfor %}
{%- if add_generation_prompt and not ns.open %}{{ '<|turn>model\\n' }}{% endif %}"""
)
# Results are turns of a separate role, after which the template begins no answer.
FUNCTION_GEMMA = """\
{%- for tool in tools or [] %}{{ '<start_function_declaration>' + tool.function.name \
+ tool.function.description + '<end_function_declaration>' }}{% endfor %}
{%- for m in messages %}
{{- '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' }}
{%- if m.role == 'tool' %}{{ '<start_function_response>response:' + m.name + '{value:<escape>' \
+ m.content + '<escape>}<end_function_response>' }}
{%- else %}{{ m.content }}
{%- for c in m.tool_calls or [] %}{{ '<start_function_call>call:' + c.function.name + '{' }}
{%- for k, v in c.function.arguments.items() %}{{ k + ':<escape>' + v + '<escape>' }}\
{{ '' if loop.last else ',' }}{% endfor %}{{ '}<end_function_call>' }}{% endfor %}
{%- endif %}{{ '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt and messages[-1].role != 'tool' %}{{ '<start_of_turn>model\\n' }}\
{% endif %}"""
MISTRAL_WITHOUT_ID = MISTRAL_TEMPLATE.replace(""" + ', "id": "' + call.id + '"}'""", " + '}'")
_NAMED = """\
{%- for m in messages %}
{%- if m.role == 'system' %}{{ '[SYSTEM_PROMPT]' + m.content + '[/SYSTEM_PROMPT]' }}
{%- elif m.role == 'user' %}{{ ('[AVAILABLE_TOOLS]' + (tools | tojson) + '[/AVAILABLE_TOOLS]' \
if tools and loop.last else '') + '[INST]' + m.content + '[/INST]' }}
{%- elif m.role == 'tool' %}{{ '[TOOL_RESULTS]' + RESULT_ID + m.content + '[/TOOL_RESULTS]' }}
{%- elif m.tool_calls %}
{%- for c in m.tool_calls %}{{ '[TOOL_CALLS]' + c.function.name + CALL_ID + '[ARGS]' \
+ (c.function.arguments | tojson) }}{% endfor %}{{ '</s>' }}
{%- else %}{{ m.content + '</s>' }}{% endif %}
{%- endfor %}"""
MISTRAL_NAMED = (
    _NAMED.replace("loop.last", "loop.index0 < 2")
    .replace("RESULT_ID + ", "")
    .replace(" + CALL_ID", "")
)
MISTRAL_WITH_ID = (
    _NAMED.replace("loop.last", "loop.index0 < 2")
    .replace("RESULT_ID", "m.tool_call_id + '[TOOL_CONTENT]'")
    .replace("CALL_ID", "'[CALL_ID]' + c.id")
)
MINIMAX = """\
{%- if tools %}{{ ']~b]system\\n' + (tools | tojson) + '[e~[\\n' }}{% endif %}
{%- for m in messages %}
{%- if m.role == 'assistant' %}{{ ']~b]ai\\n' + m.content }}
{%- if m.tool_calls %}{{ '\\n<minimax:tool_call>\\n' }}
{%- for c in m.tool_calls %}{{ '<invoke name="' + c.function.name + '">\\n' }}
{%- for k, v in c.function.arguments.items() %}{{ '<parameter name="' + k + '">' + v \
+ '</parameter>\\n' }}{% endfor %}{{ '</invoke>\\n' }}{% endfor %}
{{- '</minimax:tool_call>' }}{% endif %}{{ '[e~[\\n' }}
{%- elif m.role == 'tool' %}{{ ']~b]tool\\n<response>' + m.content + '</response>[e~[\\n' }}
{%- else %}{{ ']~b]' + m.role + '\\n' + m.content + '[e~[\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ ']~b]ai\\n' }}{% endif %}"""
# Either calls, or text after a separate mark.
MARKED_TEXT = MINIMAX.replace(
    "']~b]ai\\n' + m.content }}", "']~b]ai\\n' + ('' if m.tool_calls else '[text]' + m.content) }}"
)
# Calls followed by many results are written differently from those followed by few.
CHANGING = MINIMAX.replace(
    "'\\n<minimax:tool_call>\\n'",
    "('\\n' if loop.index + 1 < messages | length else ' ') + '<minimax:tool_call>\\n'",
)
# Results are named by the ids of their calls, which the model writes.
KIMI = """\
{%- if tools %}{{ '<|im_system|>tool_declare<|im_middle|>' + (tools | tojson) + '<|im_end|>' }}\
{% endif %}
{%- for m in messages %}
{{- '<|im_' + ('system' if m.role == 'tool' else m.role) + '|>' + m.role + '<|im_middle|>' }}
{%- if m.role == 'tool' %}{{ '## Return of ' + m.tool_call_id + '\\n' }}{% endif %}{{ m.content }}
{%- if m.tool_calls %}{{ '<|tool_calls_section_begin|>' }}{% endif %}{{ '<|im_end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_assistant|>assistant<|im_middle|>' }}{% endif %}"""
# After results the model's turn continues.
DEEPSEEK = """\
{{- '<｜begin▁of▁sentence｜>' + (tools | tojson if tools else '') }}
{%- set ns = namespace(is_tool=false) %}
{%- for m in messages %}
{%- if m.role == 'tool' %}{{ '<｜tool▁output▁begin｜>' + m.content + '<｜tool▁output▁end｜>' }}\
{% set ns.is_tool = true %}
{%- elif m.role == 'assistant' %}{{ ('' if ns.is_tool else '<｜Assistant｜>') + m.content \
+ '<｜end▁of▁sentence｜>' }}{% set ns.is_tool = false %}
{%- else %}{{ ('<｜User｜>' if m.role == 'user' else '') + m.content }}{% set ns.is_tool = false %}\
{% endif %}
{%- if '<｜tool▁calls▁begin｜>' == m.role %}{% endif %}
{%- endfor %}
{%- if add_generation_prompt and not ns.is_tool %}{{ '<｜Assistant｜>' }}{% endif %}"""
GLM = """\
{{- '[gMASK]' + (tools | tojson if tools else '') }}
{%- for m in messages %}
{%- if m.role == 'tool' %}{{ ('' if messages[loop.index0 - 1].role == 'tool' \
else '<|observation|>') + '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}
{%- else %}{{ '<|' + m.role + '|>\\n' + m.content }}{% endif %}
{%- if m.tool_calls %}<arg_key></arg_key>
<arg_value>{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"""
# One call a turn; parallel ones are refused. The result follows its call.
SINGLE = HERMES_TEMPLATE.replace(
    "{%- for tool_call in message.tool_calls or [] %}{{ '\\n<tool_call>\\n"
    '{"name": "\' + tool_call.name }}{% endfor %}',
    """\
{%- if message.tool_calls and message.tool_calls | length > 1 %}\
{{ raise_exception('one call at a time') }}{% endif %}
{%- for c in message.tool_calls or [] %}\
{{ '<minimax:tool_call>\\n<invoke name="' + c.function.name + '">\\n' }}
{%- for k, v in c.function.arguments.items() %}{{ '<parameter name="' + k + '">' + v \
+ '</parameter>\\n' }}{% endfor %}{{ '</invoke>\\n</minimax:tool_call>' }}{% endfor %}""",
)
HARMONY = """\
{#- <|channel|>analysis<|message|> #}
{{- '<|start|>developer<|message|>' + (tools | tojson if tools else '') + '<|end|>' }}
{%- set ns = namespace(name='') %}
{%- for m in messages %}
{%- if m.role == 'tool' %}{{ '<|start|>functions.' + ns.name \
+ ' to=assistant<|channel|>commentary<|message|>' + m.content + '<|end|>' }}
{%- elif m.tool_calls %}{% set ns.name = m.tool_calls[0].function.name %}
{{- '<|start|>assistant to=functions.' + ns.name + '<|channel|>commentary json<|message|>' \
+ (m.tool_calls[0].function.arguments | tojson) + '<|call|>' }}
{%- elif m.role == 'assistant' %}\
{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|end|>' }}
{%- else %}{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"""

_HERMES_CONTROLS = ["<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"]
_MISTRAL_CONTROLS = [*MISTRAL_CONTROLS, "[ARGS]", "[CALL_ID]"]
FAMILIES = {
    "gemma4": Family(GEMMA_AFTER, _GEMMA_CONTROLS),
    "gemma4 by id": Family(GEMMA_BETWEEN, _GEMMA_CONTROLS),
    "function-gemma": Family(
        FUNCTION_GEMMA,
        [
            *("<start_of_turn>", "<end_of_turn>", "<escape>"),
            *("<start_function_call>", "<end_function_call>"),
            *("<start_function_response>", "<end_function_response>"),
        ],
    ),
    "mistral": Family(MISTRAL_WITHOUT_ID, _MISTRAL_CONTROLS),
    "mistral-list-with-id": Family(MISTRAL_TEMPLATE, _MISTRAL_CONTROLS),
    "mistral-named": Family(MISTRAL_NAMED, _MISTRAL_CONTROLS),
    "mistral-with-id": Family(MISTRAL_WITH_ID, _MISTRAL_CONTROLS),
    "minimax": Family(MINIMAX, ["]~b]", "[e~["]),
    "minimax, one call": Family(SINGLE, _HERMES_CONTROLS),
    "minimax, text or calls": Family(MARKED_TEXT, ["]~b]", "[e~[", "[text]"]),
    "minimax, changing": Family(CHANGING, ["]~b]", "[e~["]),
    "kimi": Family(
        KIMI,
        [
            *("<|im_system|>", "<|im_user|>", "<|im_assistant|>", "<|im_middle|>", "<|im_end|>"),
            *("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
            *("<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"),
        ],
    ),
    "deepseek-v3.1": Family(
        DEEPSEEK,
        [
            *("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
            *("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁sep｜>"),
            *("<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"),
            *("<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"),
        ],
    ),
    "glm": Family(GLM, ["[gMASK]", "<|user|>", "<|assistant|>", "<|system|>", "<|observation|>"]),
    "hermes": Family(HERMES_TEMPLATE, _HERMES_CONTROLS),
    "harmony": Family(
        HARMONY,
        ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|call|>", "<|constrain|>"],
    ),
}


def model_of(family: Family) -> tuple[ModelTokenizer, Dialect]:
    """Return a tokenizer over bytes with a family's marks, and the dialect that is found."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(text, special=True) for text in family.controls])
    template = ChatTemplate(family.template, {})
    model = ModelTokenizer(tokenizer, template, stop_tokens=())
    return model, dialect_of(family.template, model.render, model.controls, template.names)


MODELS = {name: model_of(family) for name, family in FAMILIES.items()}
