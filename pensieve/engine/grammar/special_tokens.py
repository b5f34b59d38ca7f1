"""Finds the tokens of a tokenizer.json that llguidance treats as special, and renames them.

Used by compiled.py. llguidance decides by flags and names when it builds a tokenizer, which takes a
second for 150 000 tokens. So it builds one with the special tokens and few others.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from llguidance import LLTokenizer

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The special tokens of a tokenizer."""

    texts: Mapping[int, str]  # of tokens that text cannot spell, by id
    eos: int | None  # the token that ends a text


def special_tokens_of(fields: Fields) -> SpecialTokens:
    """Find the special tokens with llguidance. Raises ValueError for an unknown tokenizer."""
    tokens = _added(fields)
    reduced, ids = _reduced(fields)
    try:
        tokenizer = LLTokenizer(json.dumps(reduced, ensure_ascii=False))
    except ValueError:  # this kind of model does not build with few tokens
        tokenizer = LLTokenizer(json.dumps(fields, ensure_ascii=False))
        ids = {text: token for token, text in tokens.items()}
    ends = set(tokenizer.eos_tokens)
    return SpecialTokens(
        {token: text for token, text in tokens.items() if tokenizer.is_special_token(ids[text])},
        next((token for token, text in tokens.items() if ids[text] in ends), None),
    )


def renamed(fields: Fields, names: Mapping[str, str]) -> Fields:
    """Replace the texts of some tokens. Changes and returns `fields`."""
    for token in _entries(fields):
        token["content"] = names.get(token["content"], token["content"])
    model: Fields = fields.get("model") or {}
    vocabulary: Any = model.get("vocab")
    if isinstance(vocabulary, dict):
        tokens = cast("dict[str, int]", vocabulary)
        model["vocab"] = {names.get(text, text): token for text, token in tokens.items()}
    elif isinstance(vocabulary, list):
        scored = cast("list[list[Any]]", vocabulary)
        model["vocab"] = [[names.get(text, text), *rest] for text, *rest in scored]
    unknown: Any = model.get("unk_token")
    if unknown in names:
        model["unk_token"] = names[unknown]
    return fields


def _added(fields: Fields) -> dict[int, str]:
    """Return the tokens that are matched before the tokenizer's model runs, by id."""
    return {token["id"]: token["content"] for token in _entries(fields)}


def _entries(fields: Fields) -> list[Fields]:
    return fields.get("added_tokens") or []


def _reduced(fields: Fields) -> tuple[Fields, Mapping[str, int]]:
    """Return the tokenizer with its added, single-character and byte tokens only, and its ids."""
    model: Fields = dict(fields["model"])
    needed = {*_added(fields).values(), model.get("unk_token")}
    vocabulary: Any = model["vocab"]
    if isinstance(vocabulary, dict):
        texts = [text for text in cast("dict[str, int]", vocabulary) if _is_needed(text, needed)]
        model["vocab"] = {text: at for at, text in enumerate(texts)}
        model["merges"] = []
    else:
        scored = cast("list[list[Any]]", vocabulary)
        unknown: Any = model.get("unk_id")
        if unknown is not None:
            needed.add(scored[unknown][0])
        model["vocab"] = [entry for entry in scored if _is_needed(entry[0], needed)]
        if unknown is not None:
            model["unk_id"] = _texts({"model": model}).index(scored[unknown][0])
    own = {text: at for at, text in enumerate(_texts({"model": model}))}
    new = [text for text in _added(fields).values() if text not in own]
    ids = {**own, **{text: len(own) + at for at, text in enumerate(new)}}
    added = [{**token, "id": ids[token["content"]]} for token in _entries(fields)]
    return {**fields, "model": model, "added_tokens": added}, ids


def _is_needed(text: str, needed: set[Any]) -> bool:
    return len(text) == 1 or text in needed or text.startswith("<0x")


def _texts(fields: Fields) -> list[str]:
    """Return the texts of the model's tokens in the order of their ids."""
    vocabulary: Any = fields["model"]["vocab"]
    if isinstance(vocabulary, dict):
        return list(cast("dict[str, int]", vocabulary))
    return [entry[0] for entry in cast("list[list[Any]]", vocabulary)]
