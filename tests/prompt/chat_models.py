"""The tiny models' tokenizers with the chat templates of their families, as prompt is given them."""

from pensieve.models.chat_template import ChatTemplate
from pensieve.models.tokenizer import ModelTokenizer
from tests import tiny_models

# As Qwen3's: thinking of earlier turns is not written, and an answer begins with an empty thought.
THINKING_TEMPLATE = """\
{%- for message in messages %}
{%- set content = message.content.split('</think>')[-1].lstrip('\\n') if message.role == 'assistant' else message.content %}
{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' }}{% endif %}"""
# As Gemma's: no system turns, no two of a role after each other, what is written is stripped.
STRICT_TEMPLATE = """\
{%- for message in messages %}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}
{{- '<|im_start|>' + message.role + '\\n' + message.content | trim + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""


def _tokenizer(name: str, template: str) -> ModelTokenizer:
    tokenizer = {
        "phi3": tiny_models.phi3_tokenizer,
        "llama": lambda: tiny_models.byte_level_tokenizer(is_qwen=False),
        "qwen": lambda: tiny_models.byte_level_tokenizer(is_qwen=True),
    }[name]()
    return ModelTokenizer(tokenizer, ChatTemplate(template, {"eos_token": ""}), stop_tokens=())


MODELS = {
    "phi3": _tokenizer("phi3", tiny_models.PHI3_TEMPLATE),
    "chatml": _tokenizer("llama", tiny_models.CHATML_TEMPLATE),
    "qwen": _tokenizer("qwen", tiny_models.CHATML_TEMPLATE),
    "thinking": _tokenizer("qwen", THINKING_TEMPLATE),
    "strict": _tokenizer("llama", STRICT_TEMPLATE),
}
