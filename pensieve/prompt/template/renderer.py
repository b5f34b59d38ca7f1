"""Messages to text and tokens: the chat template with its variables, and answers as generated in their places.

An answer that is kept stands in the messages as a sign, as its text or as the names of its calls. Behind the template the
sign becomes the answer's tokens, what the template wrote around calls goes, and what it wrote where that turn begins becomes
what the answer's prompt ended with (placeholders.py). What lies before and behind is encoded by
itself. So a prompt that goes on from an answer begins with that answer's prompt and its tokens. A turn that the template
cannot write, since it has text and calls, is replaced by our own text in the same way.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pensieve.api.messages.content_blocks import ToolUseBlock
from pensieve.dialects.dialect import Dialect, Variables
from pensieve.prompt.boundaries import RenderedPrompt
from pensieve.prompt.chat_tokenizer import ChatTokenizer
from pensieve.prompt.conversation.call_ids import CallIds
from pensieve.prompt.conversation.turns import ChatTurn
from pensieve.prompt.template.call_turns import CallTurns, call_turns_of
from pensieve.prompt.template.chat_messages import Message
from pensieve.prompt.template.generated_answers import GeneratedAnswer, GeneratedAnswers
from pensieve.prompt.template.placeholders import Placeholders, Replacement
from pensieve.prompt.template.probe import Opening, opening_of


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """How a template has answers."""

    dialect: Dialect
    opening: Opening | None  # what it begins one with; None if not known: then none is recalled
    calls: CallTurns | None = None  # None: we write the calls

    def recalls(self, calls: int) -> bool:
        """Whether an answer with so many calls can be recalled."""
        if self.opening is None:
            return False
        if not calls or self.dialect.writer == "text":
            return True
        if self.calls is None or self.calls.frame is None:
            return False
        return calls == 1 or self.calls.takes_several


def render_options_of(
    tokenizer: ChatTokenizer, dialect: Dialect, variables: Variables
) -> RenderOptions:
    """Try the template, told these variables."""
    opening = opening_of(tokenizer, variables)
    if dialect.writer == "text":
        return RenderOptions(dialect, opening)
    return RenderOptions(dialect, opening, call_turns_of(tokenizer, dialect, variables))


class TemplateRenderer:
    """Renders one conversation. variables: what the template is told beside the messages."""

    def __init__(
        self,
        tokenizer: ChatTokenizer,
        variables: Variables,
        manner: RenderOptions,
        spoken: GeneratedAnswers,
    ) -> None:
        self._tokenizer = tokenizer
        self._variables = variables
        self._manner = manner
        self._spoken = spoken
        self.call_ids = CallIds(manner.dialect)
        self._replaces_turns = manner.opening is not None
        self._recalled: dict[str, GeneratedAnswer] = {}
        self._replacements: dict[str, Replacement] = {}
        self._signs: list[str] = []

    @property
    def call_turns(self) -> CallTurns:
        """What the template does with turns that have calls."""
        return self._manner.calls or CallTurns()

    def recall(self, turn: ChatTurn) -> str | None:
        """The sign of an assistant's turn whose tokens are kept."""
        uses = _uses(turn)
        if not self._replaces_turns or not self._manner.recalls(len(uses)):
            return None
        if (found := self._spoken.find(turn)) is None:
            return None
        sign, spoken = found
        if uses and self.call_ids.is_used:
            self.call_ids.read(uses, self._said(spoken))
        self._replacements[sign] = Replacement(self._names(uses), spoken.opening)
        self._recalled[sign] = spoken
        self._signs.append(sign)
        return sign

    def stand_in(self, turn: ChatTurn, text: str) -> str | None:
        """Return the sign for an assistant's turn with calls that `text` replaces in the prompt; None if not possible."""
        if not self._replaces_turns or self.call_turns.frame is None:
            return None
        sign = self._spoken.sign_of_text(len(self._replacements))
        self._replacements[sign] = Replacement(self._names(_uses(turn)), text=text)
        return sign

    def forget(self) -> bool:
        """Replace no turn from now on. Whether one was replaced."""
        had = bool(self._replacements)
        self._replaces_turns = False
        self._recalled, self._replacements, self._signs = {}, {}, []
        self.call_ids.clear()
        return had

    def text(self, messages: Sequence[Message]) -> str:
        """The prompt's text, with signs in it. Raises `InvalidRequestError` where the template refuses."""
        text = self._replaced(self._tokenizer.render(messages, self._variables))
        return text if self._manner.opening is None else self._manner.opening.completed(text)

    def has_all(self, text: str) -> bool:
        """Whether each replaced turn stands in `text`: some templates leave out what they do not expect."""
        signs = [found[0] for found in self._spoken.signs.finditer(text)]
        texts = (one.text for one in self._replacements.values() if one.text is not None)
        return sorted(signs) == sorted(self._signs) and all(one in text for one in texts)

    def opening_in(self, text: str, messages: Sequence[Message]) -> str | None:
        """What `text`, the prompt of `messages`, ends with to begin an answer; empty in a turn of the model's that is open."""
        if self._manner.opening is None:
            return None
        if text.endswith(whole := self._manner.opening.whole):
            return whole
        closed = {**self._variables, "add_generation_prompt": False}
        before = self._replaced(self._tokenizer.render(messages, closed))
        return text.removeprefix(before) if text.startswith(before) else ""

    def encoded(self, text: str) -> RenderedPrompt:
        """The text's tokens."""
        tokens: list[int] = []
        edges: list[tuple[int, int]] = []
        start = 0
        for found in self._spoken.signs.finditer(text) if self._recalled else ():
            self._encode(text, start, found.start(), tokens, edges)
            tokens += self._recalled[found[0]].tokens
            start = found.end()
            if text.startswith(self._mark_at_end(tokens), start):
                tokens.pop()
        self._encode(text, start, len(text), tokens, edges)
        return RenderedPrompt(text, tuple(tokens), tuple(edges))

    def _mark_at_end(self, tokens: Sequence[int]) -> str:
        """Return the mark that ends a call if `tokens` end with it: the template writes it again."""
        frame = self.call_turns.frame
        mark = frame.last_mark if frame is not None else ""
        is_there = bool(mark) and tokens[-1:] == [self._tokenizer.controls[mark]]
        return mark if is_there else "\0"

    def _encode(
        self, text: str, start: int, end: int, tokens: list[int], edges: list[tuple[int, int]]
    ) -> None:
        ids, places = self._tokenizer.encode_with_edges(text[start:end])
        edges += ((start + place, len(tokens) + count) for place, count in places)
        tokens += ids

    def _replaced(self, text: str) -> str:
        if not self._replacements or self._manner.opening is None:
            return text
        return Placeholders(
            self._spoken.signs, self._replacements, self._manner.opening, self.call_turns.frame
        ).replace(text)

    def _names(self, uses: Sequence[ToolUseBlock]) -> tuple[str, ...]:
        return tuple(self._tokenizer.neutralize(use.name) for use in uses)

    def _said(self, spoken: GeneratedAnswer) -> str:
        """Return an answer's text with the marks around its calls."""
        marks = self._manner.dialect.marks(self._tokenizer.controls)
        detokenizer = self._tokenizer.detokenizer(marks=marks)
        return "".join(map(detokenizer.feed, spoken.tokens)) + detokenizer.flush()


def _uses(turn: ChatTurn) -> list[ToolUseBlock]:
    return [block for block in turn.blocks if isinstance(block, ToolUseBlock)]
