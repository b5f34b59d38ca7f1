"""Tokenizers of the tiny models with chat templates of their families, as prompt gets them."""

from tokenizers import AddedToken, Tokenizer

from pensieve.dialects.dialect import Dialect
from pensieve.dialects.registry import dialect_of
from pensieve.models.tokenizer.chat_template import ChatTemplate
from pensieve.models.tokenizer.chat_tokenizer import ModelTokenizer
from tests.support import tiny_models

# Like Qwen3's: omits earlier thinking, and begins an answer with an empty thought.
THINKING_TEMPLATE = """\
{%- for message in messages %}
{%- set content = message.content.split('</think>')[-1].lstrip('\\n') \
if message.role == 'assistant' else message.content %}
{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' }}\
{% endif %}"""
# Like Gemma's: no system turns, roles alternate, texts are stripped.
STRICT_TEMPLATE = """\
{%- for message in messages %}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('roles must alternate') }}{% endif %}
{{- '<|im_start|>' + message.role + '\\n' + message.content | trim + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
# Like Qwen2.5's: tools, calls and results.
HERMES_TEMPLATE = """\
{%- if tools %}
{{- '<|im_start|>system\\n' + (messages[0].content + '\\n\\n' if messages[0].role == 'system' \
else '') + '# Tools\\n<tools>' }}
{%- for tool in tools %}{{ '\\n' + (tool | tojson) }}{% endfor %}
{{- '\\n</tools>\\nCall with <tool_call></tool_call>:\\n<tool_call>\\n{"name": <name>, \
"arguments": <args>}\\n</tool_call><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role in ('user', 'assistant') or (message.role == 'system' and not loop.first) %}
{{- '<|im_start|>' + message.role + '\\n' + message.content }}
{%- for tool_call in message.tool_calls or [] %}\
{{ '\\n<tool_call>\\n{"name": "' + tool_call.name }}{% endfor %}
{{- '<|im_end|>\\n' }}
{%- elif message.role == 'tool' %}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}
{{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\\n' }}{% endif %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

# Like Mistral's newer ones: a system part only at the start, alternating turns, no results without
# calls.
MISTRAL_TEMPLATE = """\
{%- set rest = messages[1:] if messages[0].role == 'system' else messages %}
{{- '[SYSTEM_PROMPT]' + messages[0].content + '[/SYSTEM_PROMPT]' if messages[0].role == 'system' }}
{{- '[AVAILABLE_TOOLS]' + (tools | tojson) + '[/AVAILABLE_TOOLS]' if tools }}
{%- set ns = namespace(said=0) %}
{%- for message in rest %}
{%- if message.role == 'user' or (message.role == 'assistant' and not message.tool_calls) %}
{%- if (message.role == 'user') != (ns.said % 2 == 0) %}\
{{ raise_exception('roles must alternate') }}{% endif %}
{%- set ns.said = ns.said + 1 %}
{%- endif %}
{%- if message.role == 'user' %}{{ '[INST]' + message.content + '[/INST]' }}
{%- elif message.role == 'tool' %}{{ '[TOOL_RESULTS]' + message.tool_call_id + '[TOOL_CONTENT]' \
+ message.content + '[/TOOL_RESULTS]' }}
{%- elif message.tool_calls %}
{{- '[TOOL_CALLS][' }}
{%- for call in message.tool_calls %}
{{- '{"name": "' + call.function.name + '", "arguments": ' + (call.function.arguments | tojson) \
+ ', "id": "' + call.id + '"}' + ('' if loop.last else ', ') }}
{%- endfor %}
{{- ']</s>' }}
{%- elif message.role == 'assistant' %}{{ message.content + '</s>' }}
{%- else %}{{ raise_exception('unknown role') }}
{%- endif %}
{%- endfor %}"""
MISTRAL_CONTROLS = [
    *["[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[AVAILABLE_TOOLS]", "</s>"],
    *["[/AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[TOOL_CONTENT]", "[/TOOL_RESULTS]"],
]


def mistral_tokenizer() -> Tokenizer:
    tokenizer = tiny_models.byte_level_tokenizer(is_qwen=False)
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in MISTRAL_CONTROLS])
    return tokenizer


TEMPLATES = {
    "phi3": tiny_models.PHI3_TEMPLATE,
    "chatml": tiny_models.CHATML_TEMPLATE,
    "qwen": tiny_models.CHATML_TEMPLATE,
    "thinking": THINKING_TEMPLATE,
    "hermes": HERMES_TEMPLATE,
    "strict": STRICT_TEMPLATE,
    "mistral": MISTRAL_TEMPLATE,
}
TOKENIZERS = {
    "phi3": tiny_models.phi3_tokenizer,
    "llama": lambda: tiny_models.byte_level_tokenizer(is_qwen=False),
    "qwen": lambda: tiny_models.byte_level_tokenizer(is_qwen=True),
    "mistral": mistral_tokenizer,
}


def chat_model(tokenizer: str, template: str) -> ModelTokenizer:
    built = TOKENIZERS[tokenizer]()
    return ModelTokenizer(built, ChatTemplate(template, {"eos_token": ""}), stop_tokens=())


def dialect_of_template(template: str, model: ModelTokenizer) -> Dialect:
    names = ChatTemplate(template, {}).names
    return dialect_of(template, model.render, model.controls, names)


_OF = {"phi3": "phi3", "chatml": "llama", "strict": "llama", "mistral": "mistral"}
MODELS = {name: chat_model(_OF.get(name, "qwen"), template) for name, template in TEMPLATES.items()}
DIALECTS = {name: dialect_of_template(TEMPLATES[name], MODELS[name]) for name in MODELS}
