"""Which tokens of a tokenizer.json are special to llguidance, and the same file with other names for them.

llguidance decides it by flags and by names, when it builds a tokenizer, which takes a second for 150 000
tokens. So it is asked about a tokenizer that has the special tokens and little else.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from llguidance import LLTokenizer

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """texts: of the tokens that no text spells, by id. eos: the token that ends a text; None if none is known."""

    texts: Mapping[int, str]
    eos: int | None


def special_tokens_of(fields: Fields) -> SpecialTokens:
    """Ask llguidance about a tokenizer.json. Raises ValueError for a tokenizer of an unknown kind."""
    tokens = _added(fields)
    few, ids = _few(fields)
    try:
        tokenizer = LLTokenizer(json.dumps(few, ensure_ascii=False))
    except ValueError:  # its model does not do with few tokens
        tokenizer = LLTokenizer(json.dumps(fields, ensure_ascii=False))
        ids = {text: token for token, text in tokens.items()}
    ends = set(tokenizer.eos_tokens)
    return SpecialTokens(
        {token: text for token, text in tokens.items() if tokenizer.is_special_token(ids[text])},
        next((token for token, text in tokens.items() if ids[text] in ends), None),
    )


def renamed(fields: Fields, names: Mapping[str, str]) -> Fields:
    """Return the tokenizer.json with other texts for some tokens. Changes `fields`."""
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
    """The tokens that are found in a text before the model of the tokenizer sees it, by id."""
    return {token["id"]: token["content"] for token in _entries(fields)}


def _entries(fields: Fields) -> list[Fields]:
    return fields.get("added_tokens") or []


def _few(fields: Fields) -> tuple[Fields, Mapping[str, int]]:
    """The same tokenizer with the added tokens and those of single characters and bytes, and its ids."""
    model: Fields = dict(fields["model"])
    kept = {*_added(fields).values(), model.get("unk_token")}
    vocabulary: Any = model["vocab"]
    if isinstance(vocabulary, dict):
        texts = [text for text in cast("dict[str, int]", vocabulary) if _is_kept(text, kept)]
        model["vocab"] = {text: at for at, text in enumerate(texts)}
        model["merges"] = []
    else:
        scored = cast("list[list[Any]]", vocabulary)
        unknown: Any = model.get("unk_id")
        if unknown is not None:
            kept.add(scored[unknown][0])
        model["vocab"] = [entry for entry in scored if _is_kept(entry[0], kept)]
        if unknown is not None:
            model["unk_id"] = _texts({"model": model}).index(scored[unknown][0])
    own = {text: at for at, text in enumerate(_texts({"model": model}))}
    new = [text for text in _added(fields).values() if text not in own]
    ids = {**own, **{text: len(own) + at for at, text in enumerate(new)}}
    added = [{**token, "id": ids[token["content"]]} for token in _entries(fields)]
    return {**fields, "model": model, "added_tokens": added}, ids


def _is_kept(text: str, kept: set[Any]) -> bool:
    return len(text) == 1 or text in kept or text.startswith("<0x")


def _texts(fields: Fields) -> list[str]:
    """The texts of the model's tokens, in the order of their ids."""
    vocabulary: Any = fields["model"]["vocab"]
    if isinstance(vocabulary, dict):
        return list(cast("dict[str, int]", vocabulary))
    return [entry[0] for entry in cast("list[list[Any]]", vocabulary)]
