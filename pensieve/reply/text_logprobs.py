"""Finds the tokens that the text of an answer is made of, for their logprobs; reply.py feeds it.

Invariant: the bytes of a text's tokens, joined, are the text. So tokens of thoughts, calls, marks
and stop sequences are left out, and a token that is partly text is that part. Tokens are grouped up
to the ends of characters, and each piece of text ends with a group.
"""

import codecs
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from pensieve.api.messages.logprobs import TextLogprob, TokenLogprob
from pensieve.engine.generation import Logprobs, Token
from pensieve.prompt.chat_tokenizer import ChatTokenizer
from pensieve.reply.spans import Span, part_of

ScoredText = tuple[str, tuple[TextLogprob, ...]]


@dataclass(slots=True)
class _Group:
    """Tokens that end with a character, and the part of them that is in the text."""

    tokens: list[tuple[bytes, Logprobs]] = field(default_factory=list[tuple[bytes, Logprobs]])
    end: int = 0  # in the answer, so far
    is_whole: bool = False  # its last character is complete
    text: str = ""


class TextLogprobs:
    """Owns the tokens of one answer until it is known whether they are in its text."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._groups = deque([_Group()])
        self._length = 0  # of the answer so far
        self._spans: tuple[Span, ...] = ()  # of text that was noted and not fed yet
        self._settled: list[_Group] = []  # all of their text was fed

    def note_token(self, token: Token, piece: str) -> None:
        """Append a token, which completes the `piece` of the answer."""
        spelled = self._tokenizer.bytes_of(token.token_id) or piece.encode()
        self._utf8.decode(spelled)
        pending, _ = self._utf8.getstate()
        self._append(piece, is_whole=not pending)
        if spelled and token.logprobs is not None:
            self._groups[-1].tokens.append((spelled, token.logprobs))

    def note_end(self, piece: str) -> None:
        """Append the last piece of the answer."""
        self._append(piece, is_whole=True)

    def _append(self, piece: str, *, is_whole: bool) -> None:
        if self._groups[-1].is_whole:
            self._groups.append(_Group())
        self._length += len(piece)
        self._groups[-1].end, self._groups[-1].is_whole = self._length, is_whole

    def note_spans(self, spans: Sequence[Span]) -> None:
        """Note where text is that will be fed, unless a stop sequence ends the answer before."""
        self._spans += tuple(spans)

    def feed(self, text: str) -> ScoredText:
        """Return the text, and what was held back of texts before, as far as it is whole groups."""
        noted = sum(end - start for start, end in self._spans)
        at = 0
        for start, end in part_of(self._spans, 0, len(text)):
            self._add(text[at : at + end - start], start)
            at += end - start
        self._spans = part_of(self._spans, len(text), noted)
        return self._take()

    def flush(self) -> ScoredText:
        """Return the text that is held back, with all tokens of its group."""
        self._settle(self._groups[0])
        return self._take()

    def _add(self, text: str, start: int) -> None:
        """Add text that is in the answer from `start` on to its groups."""
        while text:
            group = self._groups[0]
            added = text[: max(group.end - start, 0)]
            group.text += added
            start, text = start + len(added), text[len(added) :]
            if group.end <= start and group.is_whole:
                self._settle(group)
            if text:
                self._groups.popleft()

    def _settle(self, group: _Group) -> None:
        """Pass the text on with its tokens; what may follow of it has none."""
        if group.text:
            self._settled.append(replace(group))
            group.tokens, group.text = [], ""

    def _take(self) -> ScoredText:
        settled, self._settled = self._settled, []
        logprobs = (each for group in settled for each in self._logprobs_of(group))
        return "".join(group.text for group in settled), tuple(logprobs)

    def _logprobs_of(self, group: _Group) -> Iterator[TextLogprob]:
        """Yield the tokens, without bytes that are not in the text: SentencePiece's first space, or
        the beginning of a stop sequence.
        """
        spelled = b"".join(each for each, _ in group.tokens)
        text = group.text.encode()
        # Invalid bytes became replacement characters.
        first = spelled.find(text)
        last = len(spelled) if first < 0 else first + len(text)
        before = 0
        for each, logprobs in group.tokens:
            part = each[max(first - before, 0) : max(last - before, 0)]
            before += len(each)
            if part:
                yield self._logprob(part, logprobs)

    def _logprob(self, spelled: bytes, logprobs: Logprobs) -> TextLogprob:
        top = (self._alternative(token_id, logprob) for token_id, logprob in logprobs.top)
        return TextLogprob(
            token=_readable(spelled),
            logprob=logprobs.token,
            bytes=tuple(spelled),
            top_logprobs=tuple(top),
        )

    def _alternative(self, token_id: int, logprob: float) -> TokenLogprob:
        spelled = self._tokenizer.bytes_of(token_id) or self._tokenizer.name_of(token_id).encode()
        return TokenLogprob(token=_readable(spelled), logprob=logprob, bytes=tuple(spelled))


def _readable(spelled: bytes) -> str:
    return spelled.decode("utf-8", "backslashreplace")
