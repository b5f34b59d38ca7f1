"""A model's tokenizer with its chat template; implements `prompt.template.ChatTokenizer`.

Text of a client never becomes a control token: `neutralize` marks it
(models/tokenizer/control_tokens.py), and `encode` reads marked stretches with a tokenizer without
control tokens. Text without marks is encoded as the tokenizers library does it.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any, cast

from tokenizers import AddedToken, Tokenizer

from pensieve.models.tokenizer.chat_template import ChatTemplate
from pensieve.models.tokenizer.control_tokens import ControlTokenEscaper, is_escaped, unescape
from pensieve.models.tokenizer.detokenizer import StreamDetokenizer, TokenTexts
from pensieve.models.tokenizer.encoder import Encoder

# \s of Rust's regular expressions; Python's matches four more control characters.
BLANKS = r"[^\S\x1c-\x1f]*"

# A half-open range of characters in a text.
Span = tuple[int, int]


class ModelTokenizer:
    """Control tokens and stop tokens are never part of the text that the detokenizer returns.

    Raises `ModelDamagedError` for a tokenizer with an unknown decoder.
    """

    def __init__(
        self, tokenizer: Tokenizer, template: ChatTemplate, stop_tokens: Collection[int]
    ) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        added = tokenizer.get_added_tokens_decoder()
        self._controls = {number: text for text, number in controls_of(tokenizer).items()}
        self._is_normalized = tokenizer.normalizer is not None and any(
            added[number].normalized for number in self._controls
        )
        self._patterns = {
            number: _pattern_of(added[number])
            for number, text in self._controls.items()
            if text != getattr(tokenizer.model, "unk_token", None)
        }
        self._tokenizer = tokenizer
        self._encoder = Encoder(tokenizer)
        self._template = template
        self._escaper = ControlTokenEscaper(self._controls.values())
        special = {number for number, token in added.items() if token.special}
        self._texts = TokenTexts(tokenizer, special | set(stop_tokens))

    @property
    def control_tokens(self) -> frozenset[int]:
        """Ids that only the chat template writes into a prompt."""
        return frozenset(self._controls)

    def has_token(self, token_id: int) -> bool:
        """Whether the vocabulary has this id, which must be in [0, 2**32)."""
        return self._tokenizer.id_to_token(token_id) is not None

    def bytes_of(self, token_id: int) -> bytes | None:
        """Return a token's bytes in a text; None if it is hidden there, or unknown."""
        return self._texts.bytes_of(token_id) or None

    def name_of(self, token_id: int) -> str:
        """Return a token's name in the vocabulary; empty for an unknown id."""
        return self._texts.name_of(token_id).decode()

    @property
    def controls(self) -> Mapping[str, int]:
        """Control tokens' ids by their texts."""
        return {text: number for number, text in self._controls.items()}

    @property
    def text_start(self) -> tuple[int, ...]:
        """The control tokens that the tokenizer's post-processor writes before a text."""
        return self._encoder.text_start

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        variables: Mapping[str, object] | None = None,
    ) -> str:
        """Return the chat template's text. Raises `InvalidRequestError` if the template refuses."""
        return self._template.render(messages, variables)

    def neutralize(self, text: str) -> str:
        """Mark a client's text so that `encode` never reads a control token in it."""
        marked = self._escaper.escape(text)
        if self._is_normalized and self._has_control(marked):
            return self._escaper.escape_all(text)
        return marked

    def encode(self, rendered: str) -> list[int]:
        """Return token ids: control tokens where the template wrote them, plain text elsewhere."""
        return self.encode_with_edges(rendered)[0]

    def encode_with_edges(self, rendered: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Encode, and also return each control token's end: in `rendered`, and in the ids."""
        ids = self._encoder.ids(rendered)
        positions = [position for position, number in enumerate(ids) if number in self._controls]
        spans = self._spans(rendered, [ids[position] for position in positions])
        if spans is None:
            spans = self._offsets(rendered, positions)
        return self._without_marks(rendered, ids, dict(zip(positions, spans, strict=True)))

    def warm_up(self) -> None:
        """Build the encoders for marked text now: 0.4 s for 50 000 tokens that a request would
        wait for.
        """
        _ = self._plain, self._plain_after_control

    def detokenizer(
        self, preceding: Sequence[int] = (), marks: Collection[str] = ()
    ) -> StreamDetokenizer:
        """Return a new detokenizer for tokens after `preceding`. Only control tokens in `marks`
        become text.
        """
        visible = {number for number, text in self._controls.items() if text in marks}
        return StreamDetokenizer(self._texts, preceding, visible)

    def _has_control(self, text: str) -> bool:
        return not self._controls.keys().isdisjoint(self._encoder.ids(text))

    def _spans(self, rendered: str, controls: list[int]) -> list[Span] | None:
        """Find all control tokens, in this order, in the text; None if their positions are
        ambiguous.
        """
        spans: list[Span] = []
        start = 0
        for number in controls:
            pattern = None if self._is_normalized else self._patterns.get(number)
            match = pattern and pattern.search(rendered, start)
            if not match:
                return None
            spans.append(match.span())
            start = match.end()
        return spans

    def _offsets(self, rendered: str, positions: list[int]) -> list[Span]:
        """Ask the library for the spans: twice the time, and it blocks other threads while it
        frees memory.
        """
        encoding = self._encoder.encoding(rendered)
        return [cast("Span", encoding.token_to_chars(position)) for position in positions]

    def _without_marks(
        self, rendered: str, ids: list[int], controls: Mapping[int, Span]
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Encode the marked stretches between the template's control tokens again, as plain text.

        `controls` maps positions in the ids to spans in the text. Also returns the tokens' ends, in
        the text and in the new ids.
        """
        plain: list[int] = []
        edges: list[tuple[int, int]] = []
        text_from = ids_from = 0
        for position, (start, end) in controls.items():
            plain += self._stretch(rendered, (text_from, start), ids[ids_from:position])
            plain.append(ids[position])
            edges.append((end, len(plain)))
            text_from, ids_from = end, position + 1
        plain += self._stretch(rendered, (text_from, len(rendered)), ids[ids_from:])
        return plain, edges

    def _stretch(self, rendered: str, span: Span, ids: list[int]) -> list[int]:
        text = rendered[span[0] : span[1]]
        if not is_escaped(text):
            return ids
        plain = self._plain_after_control if span[0] else self._plain
        return plain.ids(unescape(text))

    @cached_property
    def _plain(self) -> Encoder:
        return _encoder_of(_without_controls(self._stored(), self._controls))

    @cached_property
    def _plain_after_control(self) -> Encoder:
        """Some tokenizers add a space only before the first word of a text, counting control
        tokens.
        """
        stored = self._stored()
        later = {part: _with_no_first(stored[part]) for part in ("normalizer", "pre_tokenizer")}
        if stored | later == stored:
            return self._plain
        return _encoder_of(_without_controls(stored | later, self._controls))

    def _stored(self) -> dict[str, Any]:
        return json.loads(self._tokenizer.to_str())


def controls_of(tokenizer: Tokenizer) -> dict[str, int]:
    """Return the added tokens by text, without those that are runs of blanks, which control
    nothing.
    """
    added = tokenizer.get_added_tokens_decoder()
    return {
        token.content: number for number, token in added.items() if token.content.strip(" \t\r\n▁")
    }


def _encoder_of(stored: Mapping[str, Any]) -> Encoder:
    return Encoder(Tokenizer.from_str(json.dumps(stored)))


def _pattern_of(token: AddedToken) -> re.Pattern[str] | None:
    """Match a control token in a text with the blanks that it absorbs; None if context decides
    whether it is one.
    """
    if token.single_word:
        return None
    blanks = (BLANKS if token.lstrip else "", BLANKS if token.rstrip else "")
    return re.compile(re.escape(token.content).join(blanks))


def _without_controls(stored: dict[str, Any], controls: Mapping[int, str]) -> dict[str, Any]:
    """Return a tokenizer.json in which no text becomes a control token, by added token or
    vocabulary.

    The other added tokens, runs of blanks, are removed too, because the library would renumber
    them.
    """
    model = stored["model"]
    # In served tokenizers no vocabulary entry with a plain space is reachable from text.
    unreachable = {text: f" {number}" for number, text in controls.items()}
    unreachable.pop(model.get("unk_token") or "", None)
    vocabulary = cast("dict[str, int] | list[list[Any]]", model["vocab"])
    if isinstance(vocabulary, dict):
        model["vocab"] = {
            unreachable.get(text, text): number for text, number in vocabulary.items()
        }
    else:
        model["vocab"] = [[unreachable.get(text, text), score] for text, score in vocabulary]
    if "merges" in model:
        model["merges"] = [
            pair for pair in model["merges"] if not {*pair, "".join(pair)} & unreachable.keys()
        ]
    return stored | {"added_tokens": [], "post_processor": None}


def _with_no_first(part: Any) -> Any:
    if isinstance(part, list):
        return [_with_no_first(item) for item in cast("list[Any]", part)]
    if not isinstance(part, dict):
        return part
    changed = {key: _with_no_first(item) for key, item in cast("dict[str, Any]", part).items()}
    return changed | (
        {"prepend_scheme": "never"} if changed.get("prepend_scheme") == "first" else {}
    )
