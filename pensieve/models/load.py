"""A model folder to what the front end needs of the model: its tokenizer, template, context and stop tokens.

Loads no weights (the engine worker does) and, where the folder has a tokenizer.json, no transformers. Runs no code of the
model's.
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
from pensieve.models.folder.snapshot import ModelFolder
from pensieve.models.folder.template_files import open_template, special_tokens
from pensieve.models.served_model import ServedModel
from pensieve.models.tokenizer.chat_tokenizer import ModelTokenizer, controls_of
from pensieve.models.tokenizer.encoder import Encoder, try_out
from pensieve.models.tokenizer.growth_limits import oversized

_log = logging.getLogger("pensieve.models")

# Tokens that end any text, where the vocabulary has them: no chat template shows them.
ENDS_OF_TEXT = ("</s>", "<|endoftext|>", "<|end_of_text|>", "<|eom_id|>")
# Tokens that end a turn, for a template that shows none: it is missing, or refuses the trials.
ENDS_OF_TURN = (
    *("<|end|>", "<|im_end|>", "<|eot_id|>", "<|eot|>", "<end_of_turn>", "<turn|>"),
    *("<|END_OF_TURN_TOKEN|>", "<|user|>", "<|assistant|>", "<|observation|>"),
)
_TOKENIZER = "tokenizer.json"
# gpt-oss's harmony format ends each of an answer's parts with <|end|>, not only the last one.
PART_MARK, PART_END = "<|channel|>", "<|end|>"

# Where nothing tells the context.
CONTEXT_TOKENS = 4096


def open_model(model: ModelFolder) -> ServedModel:
    """Open `model` for the front end. Raises `ModelDamagedError` where a file is missing, altered or of a wrong kind."""
    config = check_model(model)
    tokenizer_config = read_json(model, "tokenizer_config.json") or {}
    special = special_tokens(tokenizer_config)
    tokenizer = _tokenizer(model, str(config["model_type"]))
    template = open_template(model, tokenizer_config, special)
    controls = controls_of(tokenizer)
    render = template.probing_render()
    dialect = dialect_of(template.source, render, controls, template.names)
    ends = ends_of_turn(Probe(render, controls, template.names), dialect)
    generation_config = _generation_config(model)
    named = tokenizer.token_to_id(special.get("eos_token", ""))
    listed = (*token_ids(config.get("eos_token_id")), *generation_config.stop_tokens)
    stops = _stop_tokens(listed, named, controls, ends)
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
    )


def _generation_config(model: ModelFolder) -> GenerationConfig:
    found = read_generation_config(model.folder)
    if found.complaints:
        _log.warning("left out of %s: %s", model.folder / NAME, "; ".join(found.complaints))
    return found


def _tokenizer(model: ModelFolder, model_type: str) -> Tokenizer:
    """The model's tokenizer, tried out: it takes texts within bounds of memory and time."""
    tokenizer = _built(model, model_type)
    if not tokenizer.get_vocab_size():
        damaged(model, _TOKENIZER, "has no vocabulary")
    # It can multiply a text, and puts in only what `encode` leaves out.
    tokenizer.post_processor = None
    if fault := try_out(Encoder(tokenizer)):
        damaged(model, _TOKENIZER, fault)
    return tokenizer


def _built(model: ModelFolder, model_type: str) -> Tokenizer:
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
        damaged(model, _TOKENIZER, f"is no tokenizer ({str(error)[:200]})")


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
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # noqa: BLE001  # whatever a library of model code raises
        cause = str(error).partition("\n")[0]
        damaged(model, _TOKENIZER, f"is missing, and the other files make no tokenizer ({cause})")


def _stop_tokens(
    listed: Collection[int],
    named: int | None,
    controls: Mapping[str, int],
    ends: frozenset[str],
) -> frozenset[int]:
    """listed: by the configurations. named: the eos token. ends: shown by the chat template."""
    texts = {*ENDS_OF_TEXT, *(ends or ENDS_OF_TURN)}
    if PART_MARK in controls:
        texts.discard(PART_END)
    known = {controls[text] for text in texts if text in controls}
    return frozenset({*listed, *known, *([] if named is None else [named])})


def _context_tokens(config: Mapping[str, Any], tokenizer_config: Mapping[str, Any]) -> int:
    """What the model was built for; the tokenizer's figure only where the model's own is missing."""
    if told := context_of(text_part(config)):
        return told
    return tokens_in(tokenizer_config.get("model_max_length")) or CONTEXT_TOKENS
