"""Render messages as text and tokens: the chat template with its variables, and generated answers.

A stored answer appears in the messages as a placeholder: its text, or the names of its calls. After
the template has run, the placeholder becomes the answer's tokens; what the template wrote around
calls is removed, and the beginning of the turn becomes the end of the answer's own prompt
(placeholders.py). The text before and after is encoded separately, so a prompt that continues an
answer begins with that answer's prompt and tokens. A turn with text and calls that the template
cannot write is replaced by our own text in the same way.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pensieve.api.messages.content_blocks import ToolUseBlock
from pensieve.dialects.dialect import HOLES, Dialect, Variables
from pensieve.dialects.grammar.schema_types import as_schema
from pensieve.dialects.probing.probe import Message
from pensieve.engine.pictures import PromptPicture
from pensieve.errors import InvalidRequestError
from pensieve.prompt.chat_tokenizer import ChatTokenizer
from pensieve.prompt.conversation.turns import ChatTurn
from pensieve.prompt.template.call_turns import CallTurns, call_turns_of
from pensieve.prompt.template.generated_answers import GeneratedAnswer, GeneratedAnswers
from pensieve.prompt.template.pictures import PromptPictures
from pensieve.prompt.template.placeholders import Placeholders, Replacement
from pensieve.prompt.template.probe import Opening, opening_of


@dataclass(frozen=True, slots=True)
class RenderOptions:
    dialect: Dialect
    opening: Opening | None  # None: not known, so no answer is recalled
    calls: CallTurns | None = None  # None: the dialect writes the calls, not the template

    def can_recall(self, calls: int) -> bool:
        """Return whether an answer with this number of calls can be rendered as generated."""
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
    """Probe the template with these variables."""
    opening = opening_of(tokenizer, variables)
    if dialect.writer == "text":
        return RenderOptions(dialect, opening)
    return RenderOptions(dialect, opening, call_turns_of(tokenizer, dialect, variables))


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    text: str
    tokens: tuple[int, ...]
    edges: tuple[tuple[int, int], ...]  # from `ChatTokenizer.encode_with_edges`
    pictures: tuple[PromptPicture, ...] = ()  # as in `Generation`

    def tokens_within(self, chars: int) -> int:
        """Return how many leading tokens lie within the first `chars` characters, whatever follows.

        The prompt's last token never counts: the engine needs one token to process.
        """
        index = bisect_right(self.edges, (chars, len(self.tokens)))
        return min(self.edges[index - 1][1], len(self.tokens) - 1) if index else 0


class TemplateRenderer:
    """Renders one conversation. Owns the replacements of its turns."""

    def __init__(
        self,
        tokenizer: ChatTokenizer,
        variables: Variables,
        options: RenderOptions,
        answers: GeneratedAnswers,
        pictures: PromptPictures | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._pictures = pictures  # None: there are none
        self._variables = variables
        self._options = options
        self._answers = answers
        self.call_ids = CallIds(options.dialect)
        self._replaces_turns = options.opening is not None
        self._recalled: dict[str, GeneratedAnswer] = {}
        self._replacements: dict[str, Replacement] = {}
        self._placeholders: list[str] = []
        self._placed: list[PromptPicture] = []

    @property
    def call_turns(self) -> CallTurns:
        return self._options.calls or CallTurns()

    def recall(self, turn: ChatTurn) -> str | None:
        """Return the placeholder of a turn that is a stored answer; None if it is not."""
        uses = _uses(turn)
        if not self._replaces_turns or not self._options.can_recall(len(uses)):
            return None
        if (found := self._answers.retrieve(turn)) is None:
            return None
        placeholder, answer = found
        if uses and self.call_ids.is_used:
            self.call_ids.read(uses, self._generated_text(answer))
        self._replacements[placeholder] = Replacement(self._names(uses), answer.opening)
        self._recalled[placeholder] = answer
        self._placeholders.append(placeholder)
        return placeholder

    def substitute(self, turn: ChatTurn, text: str) -> str | None:
        """Return the placeholder of a turn that `text` replaces; None if not possible."""
        if not self._replaces_turns or self.call_turns.frame is None:
            return None
        placeholder = self._answers.text_placeholder(len(self._replacements))
        self._replacements[placeholder] = Replacement(self._names(_uses(turn)), text=text)
        return placeholder

    def stop_replacing(self) -> bool:
        """Drop all replacements and make no more. Return whether there were any."""
        had_replacements = bool(self._replacements)
        self._replaces_turns = False
        self._recalled, self._replacements, self._placeholders = {}, {}, []
        self.call_ids.clear()
        return had_replacements

    def text(self, messages: Sequence[Message]) -> str:
        """Return the text, with placeholders. Raises `InvalidRequestError` from the template."""
        text = self._replaced(self._tokenizer.render(messages, self._variables))
        return text if self._options.opening is None else _opened(text, self._options.opening)

    def has_all(self, text: str) -> bool:
        """Return whether `text` has each replaced turn: some templates omit unexpected turns."""
        placeholders = [found[0] for found in self._answers.placeholder_pattern.finditer(text)]
        texts = (one.text for one in self._replacements.values() if one.text is not None)
        return sorted(placeholders) == sorted(self._placeholders) and all(
            one in text for one in texts
        )

    def opening_in(self, text: str, messages: Sequence[Message]) -> str | None:
        """Return how `text`, the prompt of `messages`, begins the answer.

        Empty if the prompt ends in an open turn of the model; None if not known.
        """
        if self._options.opening is None:
            return None
        if text.endswith(whole := self._options.opening.whole):
            return whole
        closed = {**self._variables, "add_generation_prompt": False}
        before = self._replaced(self._tokenizer.render(messages, closed))
        return text.removeprefix(before) if text.startswith(before) else ""

    def encoded(self, text: str) -> RenderedPrompt:
        """Encode the text, with the tokens of stored answers and pictures in their places.

        Raises `InvalidRequestError` if a picture is missing.
        """
        if self._pictures is not None:
            self._pictures.check(text)
        tokens: list[int] = []
        edges: list[tuple[int, int]] = []
        self._placed = []
        encode = self._encode if self._pictures is None else self._encode_with_pictures
        start = 0
        for found in self._answers.placeholder_pattern.finditer(text) if self._recalled else ():
            encode(text, start, found.start(), tokens, edges)
            tokens += self._recalled[found[0]].tokens
            start = found.end()
            if text.startswith(self._mark_at_end(tokens), start):
                tokens.pop()
        encode(text, start, len(text), tokens, edges)
        return RenderedPrompt(text, tuple(tokens), tuple(edges), tuple(self._placed))

    def _mark_at_end(self, tokens: Sequence[int]) -> str:
        """Return the mark that ends a call if `tokens` end with it, since it is written again."""
        frame = self.call_turns.frame
        mark = frame.last_mark if frame is not None else ""
        is_there = bool(mark) and tokens[-1:] == [self._tokenizer.controls[mark]]
        return mark if is_there else "\0"

    def _encode(
        self, text: str, start: int, end: int, tokens: list[int], edges: list[tuple[int, int]]
    ) -> None:
        ids, piece_edges = self._tokenizer.encode_with_edges(text[start:end])
        if self._pictures is not None:
            self._pictures.check_tokens(ids)
        edges += ((start + offset, len(tokens) + count) for offset, count in piece_edges)
        tokens += ids

    def _encode_with_pictures(
        self, text: str, start: int, end: int, tokens: list[int], edges: list[tuple[int, int]]
    ) -> None:
        assert self._pictures is not None
        for found in self._pictures.places(text, start, end):
            self._encode(text, start, found.start(), tokens, edges)
            self._placed.append(self._pictures.write(found[0], tokens))
            start = found.end()
            edges.append((start, len(tokens)))
        self._encode(text, start, end, tokens, edges)

    def _replaced(self, text: str) -> str:
        if not self._replacements or self._options.opening is None:
            return text
        return Placeholders(
            self._answers.placeholder_pattern,
            self._replacements,
            self._options.opening,
            self.call_turns.frame,
        ).replace(text)

    def _names(self, uses: Sequence[ToolUseBlock]) -> tuple[str, ...]:
        return tuple(self._tokenizer.neutralize(use.name) for use in uses)

    def _generated_text(self, answer: GeneratedAnswer) -> str:
        """Return an answer's text with the marks around its calls."""
        marks = self._options.dialect.marks(self._tokenizer.controls)
        detokenizer = self._tokenizer.detokenizer(marks=marks)
        return "".join(map(detokenizer.feed, answer.tokens)) + detokenizer.flush()


def _uses(turn: ChatTurn) -> list[ToolUseBlock]:
    return [block for block in turn.blocks if isinstance(block, ToolUseBlock)]


def _opened(prompt: str, opening: Opening) -> str:
    """Append the beginning of an answer if the prompt ends in a closed turn without one.

    Some templates do not begin an answer after a result, and close the turn that has it.
    """
    if not opening.whole or prompt.endswith(opening.whole):
        return prompt
    is_closed = any(prompt.endswith(closing) for closing in opening.closings)
    return prompt + opening.whole if is_closed else prompt


class CallIds:
    """Ids of one prompt's calls, by the ids of their tool uses.

    Some families write an id into each call, and their templates repeat it next to the result.
    Empty for the others.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._ids: dict[str, str] = {}

    @property
    def is_used(self) -> bool:
        """Whether calls of this family have ids."""
        return bool(self._dialect.call_id)

    def read(self, uses: Sequence[ToolUseBlock], text: str) -> None:
        """Find the ids of a turn's calls in its text."""
        start = 0
        for use in uses if self.is_used else ():
            if found := self._call(use.name).search(text, start):
                start = found.end()
                if (call_id := self._id(use.name, found)) is not None:
                    self._ids[use.id] = call_id

    def get(self, use_id: str) -> str | None:
        """Return the id in the prompt of the call with this tool use."""
        return self._ids.get(use_id)

    def clear(self) -> None:
        self._ids = {}

    def _call(self, name: str) -> re.Pattern[str]:
        form = self._dialect.calls
        escaped = re.escape(form.before_name + name + form.after_name)
        for hole, pattern in HOLES.items():
            escaped = escaped.replace(re.escape(hole), f"(?P<{hole[1:-1]}>{pattern})")
        return re.compile(escaped)

    def _id(self, name: str, found: re.Match[str]) -> str | None:
        if self._dialect.calls.keys is not None:
            return _id_in_object(found.string[found.start() :])
        call_id = self._dialect.call_id.replace("{name}", name)
        for hole, value in found.groupdict().items():
            call_id = call_id.replace(f"{{{hole}}}", value)
        return call_id


def _id_in_object(text: str) -> str | None:
    """Return the id in the JSON object that `text` begins with."""
    try:
        call, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None
    call_id = as_schema(call).get("id")
    return call_id if isinstance(call_id, str) else None


class BoundaryFinder:
    """Finds where a prompt's tokens can be shared with other prompts.

    Such boundaries are the ends of the system part, of turns and of cache breakpoints. They are
    found by rendering a variant of the conversation: the common prefix of both texts is shared.
    Tokens are counted up to the last control token in that prefix, because only there they do not
    depend on what follows. So every prompt that continues this one begins with its tokens up to its
    last boundary.
    """

    def __init__(self, prompt: RenderedPrompt, render: Callable[[Sequence[Message]], str]) -> None:
        self._prompt = prompt
        self._render = render

    def shared_with(self, messages: Sequence[Message]) -> int:
        """Return the number of leading tokens shared with a prompt of `messages`.

        0 if the template refuses `messages`.
        """
        try:
            other = self._render(messages)
        except InvalidRequestError:
            return 0
        return self._prompt.tokens_within(common_prefix_length(self._prompt.text, other))


def common_prefix_length(one: str, other: str) -> int:
    """Return the number of common leading characters. Bisects, since comparing slices is fast."""
    low, high = 0, min(len(one), len(other)) + 1  # the first difference lies in [low, high)
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low
