"""A model's tokenizer with its chat template, for prompt and reply (`prompt.template.ChatTokenizer`).

No text that a client sends becomes a control token: `neutralize` marks it (models/tokenizer/control_tokens.py), and `encode` reads marked
stretches with a tokenizer that has no control tokens. Text without marks is encoded as the tokenizers library does it.
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

# What Rust's regular expressions mean by \s; Python's takes four more control characters.
BLANKS = r"[^\S\x1c-\x1f]*"

# Where something stands in a text: first character, and the one after its last.
Span = tuple[int, int]


class ModelTokenizer:
    """Built from a tokenizer, its template and the tokens that end an answer; those and special ones are never text.

    Raises `ModelDamagedError` for a tokenizer whose decoder pensieve does not know.
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
        self._forms = {
            number: _form(added[number])
            for number, text in self._controls.items()
            if text != getattr(tokenizer.model, "unk_token", None)
        }
        self._tokenizer = tokenizer
        self._encoder = Encoder(tokenizer)
        self._template = template
        self._marking = ControlTokenEscaper(self._controls.values())
        special = {number for number, token in added.items() if token.special}
        self._texts = TokenTexts(tokenizer, special | set(stop_tokens))

    @property
    def control_tokens(self) -> frozenset[int]:
        """Ids that only the chat template writes into a prompt."""
        return frozenset(self._controls)

    def has_token(self, token_id: int) -> bool:
        """Whether it has a token with this id, which is from 0 up and has 32 bits."""
        return self._tokenizer.id_to_token(token_id) is not None

    @property
    def controls(self) -> Mapping[str, int]:
        """The same by their texts."""
        return {text: number for number, text in self._controls.items()}

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        variables: Mapping[str, object] | None = None,
    ) -> str:
        """The chat template's text for `messages`. Raises `InvalidRequestError` where the template refuses them."""
        return self._template.render(messages, variables)

    def neutralize(self, text: str) -> str:
        """`text` from a client, marked so that `encode` never reads a control token in it."""
        marked = self._marking.escape(text)
        if self._is_normalized and self._has_control(marked):
            return self._marking.escape_all(text)
        return marked

    def encode(self, rendered: str) -> list[int]:
        """Token ids of rendered text: control tokens where the template wrote them, plain text elsewhere."""
        return self.encode_with_edges(rendered)[0]

    def encode_with_edges(self, rendered: str) -> tuple[list[int], list[tuple[int, int]]]:
        """As `encode`, and for each control token where it ends: in `rendered`, and in the ids."""
        ids = self._encoder.ids(rendered)
        places = [place for place, number in enumerate(ids) if number in self._controls]
        spans = self._spans(rendered, [ids[place] for place in places])
        if spans is None:
            spans = self._offsets(rendered, places)
        return self._without_marks(rendered, ids, dict(zip(places, spans, strict=True)))

    def warm_up(self) -> None:
        """Build now what a text with something like a control token in it would wait for: 0.4 s for 50 000 tokens."""
        _ = self._plain, self._plain_after_control

    def detokenizer(
        self, preceding: Sequence[int] = (), marks: Collection[str] = ()
    ) -> StreamDetokenizer:
        """A fresh detokenizer for the tokens that follow `preceding`; control tokens say nothing but where they are `marks`."""
        shown = {number for number, text in self._controls.items() if text in marks}
        return StreamDetokenizer(self._texts, preceding, shown)

    def _has_control(self, text: str) -> bool:
        return not self._controls.keys().isdisjoint(self._encoder.ids(text))

    def _spans(self, rendered: str, controls: list[int]) -> list[Span] | None:
        """Where these control tokens, all that there are and in this order, stand in the text; None where it does not say."""
        spans: list[Span] = []
        start = 0
        for number in controls:
            form = None if self._is_normalized else self._forms.get(number)
            found = form and form.search(rendered, start)
            if not found:
                return None
            spans.append(found.span())
            start = found.end()
        return spans

    def _offsets(self, rendered: str, places: list[int]) -> list[Span]:
        """The same from the library, which takes twice as long and lets nothing else run while it frees what it made."""
        encoding = self._encoder.encoding(rendered)
        return [cast("Span", encoding.token_to_chars(place)) for place in places]

    def _without_marks(
        self, rendered: str, ids: list[int], controls: Mapping[int, Span]
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """The template's control tokens part the text; marked stretches between them are encoded again, plainly.

        controls: by place in the ids, where they stand in the text. With the ids come the places where they end.
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
        """Some tokenizers put a space only before the very first word of a text, control tokens counted."""
        stored = self._stored()
        later = {part: _with_no_first(stored[part]) for part in ("normalizer", "pre_tokenizer")}
        if stored | later == stored:
            return self._plain
        return _encoder_of(_without_controls(stored | later, self._controls))

    def _stored(self) -> dict[str, Any]:
        return json.loads(self._tokenizer.to_str())


def controls_of(tokenizer: Tokenizer) -> dict[str, int]:
    """Return the added tokens by their texts. A run of blanks that is a token of its own controls nothing."""
    added = tokenizer.get_added_tokens_decoder()
    return {
        token.content: number for number, token in added.items() if token.content.strip(" \t\r\n▁")
    }


def _encoder_of(stored: Mapping[str, Any]) -> Encoder:
    return Encoder(Tokenizer.from_str(json.dumps(stored)))


def _form(token: AddedToken) -> re.Pattern[str] | None:
    """How a control token stands in a text, with the blanks that it takes up; None where it is not one whenever it does."""
    if token.single_word:
        return None
    blanks = (BLANKS if token.lstrip else "", BLANKS if token.rstrip else "")
    return re.compile(re.escape(token.content).join(blanks))


def _without_controls(stored: dict[str, Any], controls: Mapping[int, str]) -> dict[str, Any]:
    """A tokenizer.json in which no text reaches a control token: none is added, and none is a word of the vocabulary.

    The other added tokens, runs of blanks, go too: the library numbers what is left of them anew.
    """
    model = stored["model"]
    # No tokenizer that we serve lets a space through to its vocabulary as one.
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
