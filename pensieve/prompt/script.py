"""Messages to text and tokens: the chat template with its variables, and answers as generated in their places.

An answer that is kept stands in the messages as a sign, as its text or as the name of its only call. Behind the template the
sign becomes the answer's tokens, what the template wrote around a call goes, and what it wrote where that turn begins becomes
what the answer's prompt ended with. What lies before and behind is encoded by
itself. So a prompt that goes on from an answer begins with that answer's prompt and its tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pensieve.api.blocks import ToolUseBlock
from pensieve.dialects.dialect import Dialect, Variables
from pensieve.prompt.abilities import CallFrame, Opening, call_frame_of, opening_of
from pensieve.prompt.chat import Message
from pensieve.prompt.places import RenderedPrompt
from pensieve.prompt.spoken import Spoken, SpokenWords
from pensieve.prompt.template import ChatTokenizer
from pensieve.prompt.turns import ChatTurn


@dataclass(frozen=True, slots=True)
class Manner:
    """How a template has answers. opening: what it begins one with; None where it is not known, and then none is recalled.

    frame: what it writes around calls; None where we write them. recalls_calls: whether answers with calls can be recalled.
    """

    opening: Opening | None
    frame: CallFrame | None = None
    recalls_calls: bool = True


def manner_of(tokenizer: ChatTokenizer, dialect: Dialect, variables: Variables) -> Manner:
    """Try the template, told these variables."""
    opening = opening_of(tokenizer, variables)
    if dialect.writer == "text":
        return Manner(opening)
    frame = call_frame_of(tokenizer, variables)
    is_particular = dialect.calls_with_results
    return Manner(opening, frame, recalls_calls=frame is not None and not is_particular)


class Script:
    """Renders one conversation. variables: what the template is told beside the messages."""

    def __init__(
        self,
        tokenizer: ChatTokenizer,
        variables: Variables,
        manner: Manner,
        spoken: SpokenWords,
    ) -> None:
        self._tokenizer = tokenizer
        self._variables = variables
        self._opening = manner.opening
        self._manner = manner
        self._spoken = spoken
        self._recalled: dict[str, Spoken] = {}
        self._frames: dict[str, CallFrame] = {}
        self._signs: list[str] = []

    def recall(self, turn: ChatTurn) -> str | None:
        """The sign of an assistant's turn whose tokens are kept."""
        has_calls = any(isinstance(block, ToolUseBlock) for block in turn.blocks)
        if self._opening is None or (has_calls and not self._manner.recalls_calls):
            return None
        if (found := self._spoken.find(turn)) is None:
            return None
        sign, spoken = found
        if has_calls and self._manner.frame is not None:
            self._frames[sign] = self._manner.frame
        self._recalled[sign] = spoken
        self._signs.append(sign)
        return sign

    def forget(self) -> bool:
        """Recall no answer from now on. Whether one was recalled."""
        had = bool(self._signs)
        self._opening, self._recalled, self._signs, self._frames = None, {}, [], {}
        return had

    def text(self, messages: Sequence[Message]) -> str:
        """The prompt's text, with signs in it. Raises `InvalidRequestError` where the template refuses."""
        return self._with_openings(self._tokenizer.render(messages, self._variables))

    def has_all(self, text: str) -> bool:
        """Whether each recalled answer stands in `text`: some templates leave out what they do not expect."""
        signs = [found[0] for found in self._spoken.signs.finditer(text)]
        return sorted(signs) == sorted(self._signs)

    def opening_in(self, text: str) -> str | None:
        """What `text`, a prompt without the beginning of an answer, ends with to begin one."""
        if self._opening is None:
            return None
        return self._opening.whole if text.endswith(self._opening.whole) else ""

    def encoded(self, text: str) -> RenderedPrompt:
        """The text's tokens."""
        tokens: list[int] = []
        edges: list[tuple[int, int]] = []
        start = 0
        for found in self._spoken.signs.finditer(text) if self._recalled else ():
            self._encode(text, start, found.start(), tokens, edges)
            tokens += self._recalled[found[0]].tokens
            start = found.end()
        self._encode(text, start, len(text), tokens, edges)
        return RenderedPrompt(text, tuple(tokens), tuple(edges))

    def _encode(
        self, text: str, start: int, end: int, tokens: list[int], edges: list[tuple[int, int]]
    ) -> None:
        ids, places = self._tokenizer.encode_with_edges(text[start:end])
        edges += ((start + place, len(tokens) + count) for place, count in places)
        tokens += ids

    def _with_openings(self, text: str) -> str:
        """Each recalled answer behind the end of its own prompt."""
        if not self._recalled:
            return text
        parts: list[str] = []
        start = 0
        for found in self._spoken.signs.finditer(text):
            sign, before = found[0], text[start : found.start()]
            start = found.end()
            if (frame := self._frames.get(sign)) is None:
                parts += [self._opened(before, self._recalled[sign].opening), sign]
            elif before.endswith(frame.head) and (tail := frame.tail.match(text, start)):
                parts += [before.removesuffix(frame.head), self._recalled[sign].opening, sign]
                start = tail.end()
            else:  # without its sign the answer counts as lost
                parts.append(before)
        return "".join([*parts, text[start:]])

    def _opened(self, before: str, opening: str) -> str:
        """What stands before an answer's text, ending as the answer's prompt did."""
        if self._opening is None or not self._opening.shared or not opening:
            return before
        place = before.rfind(self._opening.shared)
        return before[:place] + opening if place >= 0 else before
