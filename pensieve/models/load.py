"""A model folder to what the front end needs of the model: its tokenizer, template, context and stop tokens.

Loads no weights (the engine worker does) and, where the folder has a tokenizer.json, no transformers. Runs no code of the
model's.
"""

# pyright: basic

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jinja2
from tokenizers import Tokenizer

from pensieve.dialects import plain
from pensieve.dialects.table import dialect_of
from pensieve.engine.shape import NO_LIMIT_TOKENS, context_of, text_part
from pensieve.models.chat_template import ChatTemplate
from pensieve.models.folder import ModelFolder
from pensieve.models.generation_config import (
    NAME,
    GenerationConfig,
    read_generation_config,
    token_ids,
)
from pensieve.models.integrity import check, damaged, read_json
from pensieve.models.served import ServedModel
from pensieve.models.tokenizer import ModelTokenizer

_log = logging.getLogger("pensieve.models")

# Tokens that end the assistant's turn where the vocabulary has them, whatever the configuration says; a model that begins
# another turn has ended its own (Phi-3 writes <|assistant|> once more).
END_OF_TURN = (
    "</s>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|end|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<|user|>",
    "<|assistant|>",
)
# gpt-oss's harmony format ends each of an answer's parts with <|end|>, not only the last one.
PART_MARK, PART_END = "<|channel|>", "<|end|>"

# Where nothing tells the context.
CONTEXT_TOKENS = 4096

SPECIAL_ROLES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)


def open_model(model: ModelFolder) -> ServedModel:
    """Open `model` for the front end. Raises `ModelDamagedError` where a file is missing, altered or of a wrong kind."""
    config = check(model)
    tokenizer_config = read_json(model, "tokenizer_config.json") or {}
    special = _special_tokens(tokenizer_config)
    tokenizer = _tokenizer(model, str(config["model_type"]))
    generation_config = _generation_config(model)
    stops = _stop_tokens(config, generation_config, tokenizer, special.get("eos_token"))
    template = _template(model, tokenizer_config, special)
    weights = [file.stat() for file in model.folder.glob("model*.safetensors")]
    served_tokenizer = ModelTokenizer(tokenizer, template, stops)
    served_tokenizer.warm_up()
    dialect = dialect_of(template.source, template.render, served_tokenizer.controls)
    return ServedModel(
        name=model.name,
        repo=model.repo,
        folder=model.folder,
        context_tokens=_context_tokens(config, tokenizer_config),
        stop_tokens=stops,
        size_bytes=sum(stat.st_size for stat in weights),
        created_at=int(max(stat.st_mtime for stat in weights)),
        tokenizer=served_tokenizer,
        dialect=replace(dialect, sampling=generation_config.sampling),
    )


def _generation_config(model: ModelFolder) -> GenerationConfig:
    found = read_generation_config(model.folder)
    if found.complaints:
        _log.warning("left out of %s: %s", model.folder / NAME, "; ".join(found.complaints))
    return found


def _tokenizer(model: ModelFolder, model_type: str) -> Tokenizer:
    file = model.folder / "tokenizer.json"
    if not file.exists():
        return _converted_tokenizer(model, model_type)
    read_json(model, file.name)
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # noqa: BLE001  # the library raises plain Exception
        damaged(model, file.name, f"is no tokenizer ({error})")
    if not tokenizer.get_vocab_size():
        damaged(model, file.name, "has no vocabulary")
    return tokenizer


def _converted_tokenizer(model: ModelFolder, model_type: str) -> Tokenizer:
    """transformers builds a tokenizer of the older files. Told the type, it does not read the model's config, at which it
    fails for Phi-3's rope scaling "su" (transformers 5.23).
    """
    from transformers import AutoTokenizer

    try:
        built = AutoTokenizer.from_pretrained(
            model.folder, tokenizer_type=model_type, trust_remote_code=False
        )
        return Tokenizer.from_str(built.backend_tokenizer.to_str())
    except Exception as error:  # noqa: BLE001  # whatever a library of model code raises
        cause = str(error).partition("\n")[0]
        damaged(
            model, "tokenizer.json", f"is missing, and the other files make no tokenizer ({cause})"
        )


def _stop_tokens(
    config: Mapping[str, Any],
    generation_config: GenerationConfig,
    tokenizer: Tokenizer,
    eos_token: str | None,
) -> frozenset[int]:
    listed = [*token_ids(config.get("eos_token_id")), *generation_config.stop_tokens]
    added = {
        token.content: number for number, token in tokenizer.get_added_tokens_decoder().items()
    }
    ends = [text for text in END_OF_TURN if text != PART_END or PART_MARK not in added]
    known = [added[text] for text in ends if text in added]
    named = tokenizer.token_to_id(eos_token) if eos_token else None
    return frozenset(listed + known + ([] if named is None else [named]))


def _template(
    model: ModelFolder, tokenizer_config: Mapping[str, Any], special: Mapping[str, str]
) -> ChatTemplate:
    try:
        source = _template_source(model, tokenizer_config) or plain.TEMPLATE
        return ChatTemplate(source, special)
    except (jinja2.TemplateError, UnicodeDecodeError) as error:
        damaged(model, "The chat template", f"cannot be read ({error})")


def _template_source(model: ModelFolder, tokenizer_config: Mapping[str, Any]) -> str | None:
    """Where transformers looks, in its order: a file of its own, the tokenizer's configuration, a JSON file."""
    file = model.folder / "chat_template.jinja"
    if file.exists():
        return file.read_text(encoding="utf-8")
    return _default_of(tokenizer_config.get("chat_template")) or _default_of(
        (read_json(model, "chat_template.json") or {}).get("chat_template")
    )


def _default_of(template: str | list[dict[str, str]] | dict[str, str] | None) -> str | None:
    """Some models have several templates by name."""
    if template is None or isinstance(template, str):
        return template
    if isinstance(template, list):
        template = {entry["name"]: entry["template"] for entry in template}
    return template.get("default") or next(iter(template.values()), None)


def _special_tokens(tokenizer_config: Mapping[str, Any]) -> dict[str, str]:
    found = {role: tokenizer_config.get(role) for role in SPECIAL_ROLES}
    texts = {
        role: token["content"] if isinstance(token, dict) else token
        for role, token in found.items()
    }
    return {role: text for role, text in texts.items() if text}


def _context_tokens(config: Mapping[str, Any], tokenizer_config: Mapping[str, Any]) -> int:
    """What the model was built for; the tokenizer's figure only where the model's own is missing."""
    if told := context_of(text_part(config)):
        return told
    of_tokenizer = tokenizer_config.get("model_max_length")
    return (
        int(of_tokenizer) if of_tokenizer and 0 < of_tokenizer < NO_LIMIT_TOKENS else CONTEXT_TOKENS
    )
