"""Open a model folder for the front end: tokenizer, chat template, context length, stop tokens.

Loads no weights (the engine worker does) and, if the folder has a tokenizer.json, no transformers.
Runs no code of the model.
"""

# pyright: basic

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from tokenizers import Tokenizer

from pensieve.dialects.probing.probe import Probe
from pensieve.dialects.probing.turn_ends import ends_of_turn
from pensieve.dialects.registry import dialect_of
from pensieve.engine.planning.attention_shape import context_of, text_part, tokens_in
from pensieve.models.folder.generation_config import (
    NAME,
    GenerationConfig,
    read_generation_config,
    token_ids,
)
from pensieve.models.folder.integrity import check_model, damaged, read_json
from pensieve.models.folder.sight import sight_of
from pensieve.models.folder.snapshot import ModelFolder
from pensieve.models.folder.template_files import open_template, special_tokens
from pensieve.models.served_model import ServedModel
from pensieve.models.tokenizer.chat_tokenizer import ModelTokenizer, controls_of
from pensieve.models.tokenizer.encoder import Encoder, find_fault
from pensieve.models.tokenizer.growth_limits import oversized

_log = logging.getLogger("pensieve.models")

# Tokens that end any text, if the vocabulary has them; chat templates do not show them.
ENDS_OF_TEXT = ("</s>", "<|endoftext|>", "<|end_of_text|>", "<|eom_id|>")
# Tokens that end a turn, for a template that shows none: it is missing, or fails on the probes.
ENDS_OF_TURN = (
    *("<|end|>", "<|im_end|>", "<|eot_id|>", "<|eot|>", "<end_of_turn>", "<turn|>"),
    *("<|END_OF_TURN_TOKEN|>", "<|user|>", "<|assistant|>", "<|observation|>"),
)
_TOKENIZER = "tokenizer.json"
# gpt-oss's harmony format ends each part of an answer with <|end|>, not only the last one.
PART_MARK, PART_END = "<|channel|>", "<|end|>"

# Used if no file states the context.
DEFAULT_CONTEXT_TOKENS = 4096


def open_model(model: ModelFolder) -> ServedModel:
    """Open `model` for the front end. Raises `ModelDamagedError` if a file is missing, modified
    or of a wrong kind.
    """
    config = check_model(model)
    tokenizer_config = read_json(model, "tokenizer_config.json") or {}
    special_texts = special_tokens(tokenizer_config)
    tokenizer = _tokenizer(model, str(config["model_type"]))
    template = open_template(model, tokenizer_config, special_texts)
    controls = controls_of(tokenizer)
    render = template.probing_render()
    dialect = dialect_of(template.source, render, controls, template.names)
    ends = ends_of_turn(Probe(render, controls, template.names), dialect)
    generation_config = _generation_config(model)
    eos_token = tokenizer.token_to_id(special_texts.get("eos_token", ""))
    configured = (*token_ids(config.get("eos_token_id")), *generation_config.stop_tokens)
    stops = _stop_tokens(configured, eos_token, controls, ends)
    weights = [file.stat() for file in model.folder.glob("model*.safetensors")]
    served_tokenizer = ModelTokenizer(tokenizer, template, stops)
    served_tokenizer.warm_up()
    return ServedModel(
        name=model.name,
        repo=model.repo,
        folder=model.folder,
        context_tokens=_context_tokens(config, tokenizer_config),
        stop_tokens=stops,
        size_bytes=sum(stat.st_size for stat in weights),
        created_at=int(max(stat.st_mtime for stat in weights)),
        tokenizer=served_tokenizer,
        dialect=replace(
            dialect,
            has_tool_template=template.has_tool_source,
            sampling=generation_config.sampling,
        ),
        sight=sight_of(model.folder, config, controls),
    )


def _generation_config(model: ModelFolder) -> GenerationConfig:
    config = read_generation_config(model.folder)
    if config.problems:
        _log.warning(
            "ignoring invalid fields of %s: %s", model.folder / NAME, "; ".join(config.problems)
        )
    return config


def _tokenizer(model: ModelFolder, model_type: str) -> Tokenizer:
    """Build the tokenizer and check on sample texts that it stays within limits of memory and
    time.
    """
    tokenizer = _build_tokenizer(model, model_type)
    if not tokenizer.get_vocab_size():
        damaged(model, _TOKENIZER, "has no vocabulary")
    # It can multiply a text, and it adds only tokens that `encode` omits.
    tokenizer.post_processor = None
    if fault := find_fault(Encoder(tokenizer)):
        damaged(model, _TOKENIZER, fault)
    return tokenizer


def _build_tokenizer(model: ModelFolder, model_type: str) -> Tokenizer:
    stored = read_json(model, _TOKENIZER)
    if stored is None:
        return _converted_tokenizer(model, model_type)
    if fault := oversized(stored):
        damaged(model, _TOKENIZER, fault)
    try:
        return Tokenizer.from_file(str(model.folder / _TOKENIZER))
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # noqa: BLE001  # the library raises plain Exception, and panics
        damaged(model, _TOKENIZER, f"is not a tokenizer ({str(error)[:200]})")


def _converted_tokenizer(model: ModelFolder, model_type: str) -> Tokenizer:
    """Convert older files with transformers.

    With the type given, it does not read the model's config, on which it fails for Phi-3's rope
    scaling "su" (transformers 5.23).
    """
    from transformers import AutoTokenizer

    try:
        built = AutoTokenizer.from_pretrained(
            model.folder, tokenizer_type=model_type, trust_remote_code=False
        )
        return Tokenizer.from_str(built.backend_tokenizer.to_str())
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # noqa: BLE001  # whatever a library of model code raises
        cause = str(error).partition("\n")[0]
        damaged(model, _TOKENIZER, f"is missing, and the other files make no tokenizer ({cause})")


def _stop_tokens(
    configured: Collection[int],
    eos_token: int | None,
    controls: Mapping[str, int],
    ends: frozenset[str],  # shown by the chat template
) -> frozenset[int]:
    texts = {*ENDS_OF_TEXT, *(ends or ENDS_OF_TURN)}
    if PART_MARK in controls:
        texts.discard(PART_END)
    available = {controls[text] for text in texts if text in controls}
    return frozenset({*configured, *available, *([] if eos_token is None else [eos_token])})


def _context_tokens(config: Mapping[str, Any], tokenizer_config: Mapping[str, Any]) -> int:
    """Return the context of the model's config, or the tokenizer's limit if the config has none."""
    if configured := context_of(text_part(config)):
        return configured
    return tokens_in(tokenizer_config.get("model_max_length")) or DEFAULT_CONTEXT_TOKENS
