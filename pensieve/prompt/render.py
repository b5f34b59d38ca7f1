"""Render a conversation as prompt tokens, with the boundaries that the prefix cache uses.

`count_tokens` and generation use the same tokens. No client text becomes a control token (see
conversation/block_text.py).
"""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random

from pensieve.api.messages.content_blocks import Breakpoint
from pensieve.api.messages.message import ClearedToolUses, ContextEdits
from pensieve.api.messages.request import Conversation, Turn
from pensieve.dialects.answer_format import AnswerFormat
from pensieve.dialects.dialect import Dialect, Variables
from pensieve.dialects.families import plain
from pensieve.dialects.sampling_defaults import NEUTRAL, SamplingDefaults
from pensieve.errors import InvalidRequestError, PromptTooLongError
from pensieve.prompt.chat_tokenizer import ChatTokenizer
from pensieve.prompt.constraints import AnswerConstraints, constrain_answer
from pensieve.prompt.conversation.block_text import ToolNames
from pensieve.prompt.conversation.context_edits import clear_tool_uses
from pensieve.prompt.conversation.pictures import pictures_of
from pensieve.prompt.conversation.tools import ToolSet, tool_set_of
from pensieve.prompt.shadow import ShadowTokens
from pensieve.prompt.template.chat_messages import (
    ChatWriter,
    Layout,
    lay_out,
    parallel_uses,
    template_tool,
    tool_uses,
)
from pensieve.prompt.template.generated_answers import GeneratedAnswers
from pensieve.prompt.template.pictures import PictureMarks, PromptPictures
from pensieve.prompt.template.probe import Abilities, abilities_of
from pensieve.prompt.template.renderer import (
    BoundaryFinder,
    RenderedPrompt,
    RenderOptions,
    TemplateRenderer,
    render_options_of,
)
from pensieve.prompt.thinking import (
    BoundedThought,
    thinking_budget,
    thinking_variables,
)

_log = logging.getLogger("pensieve.prompt")

# Earlier user turns whose ends are boundaries: clients rewind a turn or two, seldom more.
MAX_EARLIER_TURNS = 2
# The API accepts no more; the last ones are used.
MAX_BREAKPOINTS = 4

# A text with fewer characters per token of the context is tokenized whole: it may fit, and costs
# little more than one that does.
CHARS_PER_TOKEN = 8
PIECE_CHARS = 100_000
# A piece cut from a text can have this many more tokens than the same characters within the text.
_EXTRA_TOKENS_PER_PIECE = 8

# Selects the template for tools without offering any; only for models that have one.
_NO_TOOLS: Variables = {"tools": []}

# Texts of probe turns.
_PROBE = "x"
_OTHER_PROBE = "y"


@dataclass(frozen=True, slots=True)
class Prompt:
    rendered: RenderedPrompt
    original_tokens: int  # before context edits
    constraints: AnswerConstraints
    opening: str | None = None  # the answer's beginning by the template; None after a prefill
    boundaries: tuple[int, ...] = ()  # as in `Generation`
    pinned_tokens: int = 0  # as in `Generation`
    breakpoints: tuple[Breakpoint, ...] = ()
    edits: ContextEdits | None = None  # applied ones, if the client requested any
    sampling: SamplingDefaults = NEUTRAL  # for fields that the request does not set
    hints: tuple[tuple[int, ...], ...] = ()  # as in `Generation`
    stop_tokens: frozenset[int] = frozenset()  # in addition to the model's

    @property
    def tokens(self) -> tuple[int, ...]:
        return self.rendered.tokens


@dataclass(frozen=True, slots=True)
class _Draft:
    conversation: Conversation
    tool_set: ToolSet
    renderer: TemplateRenderer
    layout: Layout
    rendered: RenderedPrompt

    @property
    def length(self) -> int:
        return len(self.rendered.tokens)


class PromptRenderer:
    """Renders conversations for one model. Probes its chat template once, when constructed.

    answers: earlier answers as generated; turns that match one are rendered with its tokens.
    """

    def __init__(
        self,
        tokenizer: ChatTokenizer,
        dialect: Dialect = plain.DIALECT,
        context_tokens: int = 1_000_000,
        answers: GeneratedAnswers | None = None,
        picture_marks: PictureMarks | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._picture_marks = picture_marks
        self._dialect = dialect
        self._context_tokens = context_tokens
        self._answers = answers or GeneratedAnswers()
        self._shadows = ShadowTokens(tokenizer, dialect.calls)
        self._abilities: dict[bool, Abilities] = {False: abilities_of(tokenizer, dialect, {})}
        self._options: dict[str, RenderOptions] = {}
        self._logged: set[str] = set()

    def render(
        self,
        conversation: Conversation,
        *,
        context_tokens: int | None = None,
        answer_tokens: int | None = None,
        has_hints: bool = True,
    ) -> Prompt:
        """Return the prompt. A final assistant turn is continued: its text ends the prompt.

        context_tokens: a prompt far longer is refused before it is tokenized. answer_tokens: the
        limit of the answer, which bounds its thought; None if there will be no answer. has_hints:
        whether the engine uses hints. Raises `PromptTooLongError`, and `InvalidRequestError` if the
        conversation cannot be rendered.
        """
        has_hints = has_hints and answer_tokens is not None
        is_edited = bool((managed := conversation.context_management) and managed.edits)
        original = self._draft(conversation, None if is_edited else context_tokens)
        if conversation.context_management is None:
            return self._prompt(original, original.length, answer_tokens, has_hints=has_hints)
        draft, applied = self._apply_edits(original)
        prompt = self._prompt(draft, original.length, answer_tokens, has_hints=has_hints)
        return replace(prompt, edits=ContextEdits(applied_edits=tuple(applied)))

    def _draft(self, conversation: Conversation, context_tokens: int | None = None) -> _Draft:
        tool_set = self._tool_set(conversation)
        renderer = self._renderer(conversation, tool_set)
        layout, text = self._render_text(conversation, tool_set, renderer)
        if not renderer.has_all(text) and renderer.stop_replacing():
            layout, text = self._render_text(conversation, tool_set, renderer)
        if context_tokens is not None:
            self._refuse_long(text, context_tokens)
        return _Draft(conversation, tool_set, renderer, layout, renderer.encoded(text))

    def _tool_set(self, conversation: Conversation) -> ToolSet:
        if not conversation.declares_tools:
            return ToolSet()
        return tool_set_of(conversation, self._context_tokens, self._dialect.calls.parameters)

    def _refuse_long(self, text: str, max_tokens: int) -> None:
        length = length_beyond(text, max_tokens, lambda piece: len(self._tokenizer.encode(piece)))
        if length is not None:
            raise PromptTooLongError(length, max_tokens)

    def _render_text(
        self, conversation: Conversation, tool_set: ToolSet, renderer: TemplateRenderer
    ) -> tuple[Layout, str]:
        """Return the layout and its text. Drop generated answers if the template refuses them."""
        layout = self._lay_out(conversation, tool_set, renderer)
        try:
            return layout, renderer.text(layout.messages) + layout.prefill
        except InvalidRequestError:
            if not renderer.stop_replacing():
                raise
            return self._render_text(conversation, tool_set, renderer)

    def _renderer(self, conversation: Conversation, tool_set: ToolSet) -> TemplateRenderer:
        tools: Variables = _NO_TOOLS if self._has_tool_template(conversation, tool_set) else {}
        variables = tools
        if (form := self._dialect.thinking) is not None:
            variables = {**thinking_variables(form, conversation), **tools}
        key = repr(sorted(variables.items()))
        if key not in self._options:
            self._options[key] = render_options_of(self._tokenizer, self._dialect, variables)
            self._log_limits(self._options[key])
        if self._dialect.tools == "template" and tool_set.listed:
            tools = {
                "tools": [
                    template_tool(tool, self._tokenizer.neutralize) for tool in tool_set.listed
                ]
            }
        pictures = None
        if (marks := self._picture_marks) is not None and conversation.has_images:
            pictures = PromptPictures(marks, pictures_of(conversation.messages))
        return TemplateRenderer(
            self._tokenizer,
            {**variables, **tools},
            self._options[key],
            self._answers,
            pictures,
        )

    def _log_limits(self, options: RenderOptions) -> None:
        """Log once each limit of the template."""
        for limit in options.calls.limits() if options.calls is not None else ():
            if limit not in self._logged:
                _log.info("the chat template %s", limit)
                self._logged.add(limit)

    def _has_tool_template(self, conversation: Conversation, tool_set: ToolSet) -> bool:
        """Return whether the conversation needs the model's separate template for tools."""
        return self._dialect.has_tool_template and bool(
            tool_set.listed or tool_uses(conversation.messages)
        )

    def _lay_out(
        self, conversation: Conversation, tool_set: ToolSet, renderer: TemplateRenderer
    ) -> Layout:
        messages = conversation.messages
        tool_names = ToolNames(
            tool_uses(messages), tool_set.presented, parallel_uses(messages), tool_set.slots
        )
        with_tools = self._has_tool_template(conversation, tool_set)
        if with_tools not in self._abilities:
            self._abilities[with_tools] = abilities_of(self._tokenizer, self._dialect, _NO_TOOLS)
        abilities = self._abilities[with_tools]
        writer = ChatWriter(
            self._dialect,
            tool_names,
            self._tokenizer.neutralize,
            renderer.recall,
            renderer.call_ids,
            renderer.substitute,
            renderer.call_turns,
            takes_text_after_results=abilities.text_after_results,
            takes_results_after_text=abilities.results_after_text,
        )
        return lay_out(conversation, tool_set, writer, abilities.system)

    def _apply_edits(self, draft: _Draft) -> tuple[_Draft, list[ClearedToolUses]]:
        """Apply each context edit that clears at least as many tokens as it requires."""
        assert draft.conversation.context_management is not None
        applied: list[ClearedToolUses] = []
        for edit in draft.conversation.context_management.edits:
            edited = clear_tool_uses(draft.conversation, edit, draft.length)
            if edited is None:
                continue
            shorter = self._draft(edited.conversation)
            cleared = draft.length - shorter.length
            if cleared >= (edit.clear_at_least.value if edit.clear_at_least else 1):
                draft = shorter
                applied.append(
                    ClearedToolUses(
                        cleared_tool_uses=edited.cleared_tool_uses, cleared_input_tokens=cleared
                    )
                )
        return draft, applied

    def _prompt(
        self, draft: _Draft, original_tokens: int, answer_tokens: int | None, *, has_hints: bool
    ) -> Prompt:
        finder = BoundaryFinder(draft.rendered, draft.renderer.text)
        layout, text = draft.layout, draft.rendered.text
        ends = _TurnEnds(
            draft.layout,
            finder,
            system=_system_end(draft.layout, finder),
            last=finder.shared_with(self._next_request_layout(draft).messages),
        )
        return Prompt(
            rendered=draft.rendered,
            original_tokens=original_tokens,
            constraints=self._constraints(draft, answer_tokens),
            opening=None if layout.prefill else draft.renderer.opening_in(text, layout.messages),
            boundaries=tuple(sorted({ends.system, ends.last, *ends.earlier()} - {0})),
            pinned_tokens=ends.system,
            breakpoints=tuple(_breakpoints(draft, ends))[-MAX_BREAKPOINTS:],
            sampling=self._dialect.sampling,
            hints=self._hints(draft.conversation) if has_hints else (),
        )

    def _constraints(self, draft: _Draft, answer_tokens: int | None) -> AnswerConstraints:
        conversation = draft.conversation
        thinks = self._dialect.thinking is not None
        if not thinks and not conversation.declares_tools and conversation.output_schema is None:
            return AnswerConstraints(AnswerFormat(self._dialect, may_think=False))
        return constrain_answer(
            conversation,
            draft.tool_set,
            self._dialect,
            self._tokenizer.controls,
            self._thought(draft, answer_tokens),
        )

    def _hints(self, conversation: Conversation) -> tuple[tuple[int, ...], ...]:
        # Answers copy what tools returned; most requests without any are short.
        return self._shadows.of(conversation) if tool_uses(conversation.messages) else ()

    def _thought(self, draft: _Draft, answer_tokens: int | None) -> BoundedThought:
        form = self._dialect.thinking
        if form is None:
            return BoundedThought("none")
        if answer_tokens is not None:
            answer_tokens = min(answer_tokens, self._context_tokens - draft.length)
        return BoundedThought(
            "none" if draft.layout.prefill else form.state_after(draft.rendered.text),
            thinking_budget(form, draft.conversation, answer_tokens),
        )

    def _next_request_layout(self, draft: _Draft) -> Layout:
        """Return the layout of a possible next request: with an answer and another user turn."""
        conversation, layout = draft.conversation, draft.layout
        if any(turn.clear_at != "never" for turn in conversation.messages):
            turns = (*conversation.messages, _probe_turn("assistant"), _probe_turn("user"))
            later = conversation.model_copy(update={"messages": turns})
            return self._lay_out(later, draft.tool_set, draft.renderer)
        answer = {"role": "assistant", "content": layout.prefill + _PROBE}
        question = {"role": "user", "content": _PROBE}
        return replace(layout, messages=[*layout.messages, answer, question])


def length_beyond(text: str, max_tokens: int, count: Callable[[str], int]) -> int | None:
    """Return about how many tokens `text` has if that surely exceeds `max_tokens`; else None.

    Counts random pieces until they exceed the limit: tokenizing millions of tokens takes seconds
    and gigabytes, only to refuse the prompt. count: returns a text's number of tokens.
    """
    if len(text) <= max_tokens * CHARS_PER_TOKEN:
        return None
    starts = list(range(0, len(text), PIECE_CHARS))
    Random(0).shuffle(starts)  # noqa: S311 -- a sample, the same each time
    tokens = chars = 0
    for start in starts:
        piece = text[start : start + PIECE_CHARS]
        tokens += max(0, count(piece) - _EXTRA_TOKENS_PER_PIECE)
        chars += len(piece)
        if tokens > max_tokens:
            return math.ceil(tokens * (len(text) / chars))
    return None


def _probe_turn(role: str) -> Turn:
    return Turn.model_validate({"role": role, "content": _PROBE})


def _system_end(layout: Layout, finder: BoundaryFinder) -> int:
    """Return the end of what conversations with the same system prompt share."""
    if layout.turns[0].role != "system":
        return 0
    first_text = str(layout.messages[1]["content"]).lstrip() if len(layout.messages) > 1 else ""
    other = _OTHER_PROBE if first_text.startswith(_PROBE) else _PROBE
    return finder.shared_with([layout.messages[0], {"role": "user", "content": other}])


@dataclass(frozen=True, slots=True)
class _TurnEnds:
    """Ends of turns, as numbers of prompt tokens."""

    layout: Layout
    finder: BoundaryFinder
    system: int  # of the system part
    last: int  # of the last turn

    def of(self, at: int) -> int:
        if at >= len(self.layout.ends) - 1:
            return self.last
        if at == 0 and self.layout.turns[0].role == "system":
            return self.system
        return self.finder.shared_with(self.layout.messages[: self.layout.ends[at]])

    def earlier(self) -> Iterator[int]:
        """Return the ends of the user turns just before the last turn."""
        turns = self.layout.turns[: len(self.layout.ends) - 1]
        users = [at for at, turn in enumerate(turns) if turn.role == "user"]
        return map(self.of, users[-MAX_EARLIER_TURNS:])


def _breakpoints(draft: _Draft, ends: _TurnEnds) -> Iterator[Breakpoint]:
    """Yield the client's cache breakpoints in prompt order: tools, turns, the request's own."""
    tools = [tool.cache_control for tool in draft.conversation.tools if tool.cache_control]
    if tools:
        yield Breakpoint(ends.system, tools[-1].ttl)
    marked = [
        (at, mark) for at, turn in enumerate(draft.layout.turns) if (mark := turn.cache_control)
    ]
    for at, mark in marked[-MAX_BREAKPOINTS:]:
        yield Breakpoint(ends.of(at), mark.ttl)
    if (mark := draft.conversation.cache_control) is not None:
        yield Breakpoint(ends.last, mark.ttl)
