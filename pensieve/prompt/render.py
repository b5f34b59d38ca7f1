"""A conversation as prompt tokens, with the places in them that are worth a KV cache or that the client marked.

The same tokens are counted by `count_tokens` and generated from, so the two never differ. No client text ever becomes
a control token (prompt/conversation/block_text.py).
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pensieve.api.messages.message import ClearedToolUses, ContextEdits
from pensieve.api.messages.request import Conversation, MessagesRequest, Turn
from pensieve.api.messages.usage import Breakpoint
from pensieve.dialects.dialect import Dialect, Variables
from pensieve.dialects.families import plain
from pensieve.dialects.sampling_defaults import NEUTRAL, SamplingDefaults
from pensieve.errors import InvalidRequestError, PromptTooLongError
from pensieve.prompt.boundaries import BoundaryFinder, RenderedPrompt
from pensieve.prompt.chat_tokenizer import ChatTokenizer
from pensieve.prompt.constraints import AnswerConstraints, constrain_answer
from pensieve.prompt.conversation.block_text import ToolNames
from pensieve.prompt.conversation.context_edits import clear_tool_uses
from pensieve.prompt.conversation.tools import ToolSet, tool_set_of
from pensieve.prompt.layout import Layout, lay_out
from pensieve.prompt.template.chat_messages import (
    ChatWriter,
    parallel_uses,
    template_tool,
    tool_uses,
)
from pensieve.prompt.template.generated_answers import GeneratedAnswers
from pensieve.prompt.template.probe import Abilities, abilities_of
from pensieve.prompt.template.renderer import RenderOptions, TemplateRenderer, render_options_of
from pensieve.prompt.text_length import length_beyond
from pensieve.prompt.thinking import (
    BoundedThought,
    thinking_budget,
    thinking_variables,
    thought_of,
)

_log = logging.getLogger("pensieve.prompt")

# Ends of earlier user turns that are boundaries too: a person goes back a turn or two, seldom further.
MAX_EARLIER_TURNS = 2
# The API takes no more; of more, the last count.
MAX_BREAKPOINTS = 4

# Selects the template for tools without offering any; only for models that have one.
_NO_TOOLS: Variables = {"tools": []}

# What is said where a conversation goes another way.
_PROBE = "x"
_OTHER_PROBE = "y"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation rendered. boundaries, pinned_tokens: as `Generation` has them.

    plan: what the answer may be and how it is read. opening: what the prompt ends with to begin the answer; None where the
    client began it. edits: what was done to the context, where the client asked; original_tokens: how long the prompt was
    before that. rendered: with the text that the tokens are of.
    """

    rendered: RenderedPrompt
    original_tokens: int
    plan: AnswerConstraints
    opening: str | None = None
    boundaries: tuple[int, ...] = ()
    pinned_tokens: int = 0
    breakpoints: tuple[Breakpoint, ...] = ()
    edits: ContextEdits | None = None
    sampling: SamplingDefaults = NEUTRAL  # where the call does not say

    @property
    def tokens(self) -> tuple[int, ...]:
        """The whole prompt's."""
        return self.rendered.tokens


@dataclass(frozen=True, slots=True)
class _Draft:
    """A conversation, laid out and rendered."""

    conversation: Conversation
    offer: ToolSet
    script: TemplateRenderer
    layout: Layout
    rendered: RenderedPrompt

    @property
    def length(self) -> int:
        """In tokens."""
        return len(self.rendered.tokens)


class PromptRenderer:
    """Renders conversations for one model. Tries its chat template once, when made.

    context_tokens: the model's. spoken: answers as generated, to be rendered as they were.
    """

    def __init__(
        self,
        tokenizer: ChatTokenizer,
        dialect: Dialect = plain.DIALECT,
        context_tokens: int = 1_000_000,
        spoken: GeneratedAnswers | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._dialect = dialect
        self._context_tokens = context_tokens
        self._spoken = spoken or GeneratedAnswers()
        self._abilities: dict[bool, Abilities] = {False: abilities_of(tokenizer, dialect, {})}
        self._manners: dict[str, RenderOptions] = {}
        self._logged: set[str] = set()

    def render(self, conversation: Conversation, most_tokens: int | None = None) -> Prompt:
        """The prompt. A final assistant turn is continued: its text is the prompt's end.

        most_tokens: what the model takes; of a prompt far longer the tokens are not made. Raises `PromptTooLongError` for
        that, and `InvalidRequestError` where the conversation cannot be rendered.
        """
        is_edited = bool((managed := conversation.context_management) and managed.edits)
        original = self._draft(conversation, None if is_edited else most_tokens)
        if conversation.context_management is None:
            return self._prompt(original, original.length)
        draft, applied = self._edited(original)
        prompt = self._prompt(draft, original.length)
        return replace(prompt, edits=ContextEdits(applied_edits=tuple(applied)))

    def _draft(self, conversation: Conversation, most_tokens: int | None = None) -> _Draft:
        offer = tool_set_of(conversation, self._context_tokens, self._dialect.calls.parameters)
        script = self._script(conversation, offer)
        layout, text = self._written(conversation, offer, script)
        if not script.has_all(text) and script.forget():
            layout, text = self._written(conversation, offer, script)
        if most_tokens is not None:
            self._refuse_long(text, most_tokens)
        return _Draft(conversation, offer, script, layout, script.encoded(text))

    def _refuse_long(self, text: str, most_tokens: int) -> None:
        length = length_beyond(text, most_tokens, lambda piece: len(self._tokenizer.encode(piece)))
        if length is not None:
            raise PromptTooLongError(length, most_tokens)

    def _written(
        self, conversation: Conversation, offer: ToolSet, script: TemplateRenderer
    ) -> tuple[Layout, str]:
        """The layout and its text. A template that refuses answers as generated gets them rendered anew."""
        layout = self._laid_out(conversation, offer, script)
        try:
            return layout, script.text(layout.messages) + layout.prefill
        except InvalidRequestError:
            if not script.forget():
                raise
            return self._written(conversation, offer, script)

    def _script(self, conversation: Conversation, offer: ToolSet) -> TemplateRenderer:
        tools: Variables = _NO_TOOLS if self._has_tool_template(conversation, offer) else {}
        switch = {**thinking_variables(self._dialect, conversation), **tools}
        key = repr(sorted(switch.items()))
        if key not in self._manners:
            self._manners[key] = render_options_of(self._tokenizer, self._dialect, switch)
            self._log_limits(self._manners[key])
        if self._dialect.tools == "template" and offer.shown:
            tools = {
                "tools": [template_tool(tool, self._tokenizer.neutralize) for tool in offer.shown]
            }
        return TemplateRenderer(
            self._tokenizer, {**switch, **tools}, self._manners[key], self._spoken
        )

    def _log_limits(self, manner: RenderOptions) -> None:
        """Log, once each, what the template cannot do."""
        for limit in manner.calls.limits() if manner.calls is not None else ():
            if limit not in self._logged:
                _log.info("the chat template %s", limit)
                self._logged.add(limit)

    def _has_tool_template(self, conversation: Conversation, offer: ToolSet) -> bool:
        """Whether the template for tools renders the conversation: it offers or has used some."""
        return self._dialect.has_tool_template and bool(
            offer.shown or tool_uses(conversation.messages)
        )

    def _laid_out(
        self, conversation: Conversation, offer: ToolSet, script: TemplateRenderer
    ) -> Layout:
        messages = conversation.messages
        known = ToolNames(tool_uses(messages), offer.known, parallel_uses(messages), offer.slots)
        with_tools = self._has_tool_template(conversation, offer)
        if with_tools not in self._abilities:
            self._abilities[with_tools] = abilities_of(self._tokenizer, self._dialect, _NO_TOOLS)
        abilities = self._abilities[with_tools]
        writer = ChatWriter(
            self._dialect,
            known,
            self._tokenizer.neutralize,
            script.recall,
            script.call_ids,
            script.stand_in,
            script.call_turns,
            takes_text_after_results=abilities.text_after_results,
            takes_results_after_text=abilities.results_after_text,
        )
        return lay_out(conversation, offer, writer, abilities.system)

    def _edited(self, draft: _Draft) -> tuple[_Draft, list[ClearedToolUses]]:
        """What the context's edits leave of it: each is tried, and kept where it clears as much as it must."""
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

    def _prompt(self, draft: _Draft, original_tokens: int) -> Prompt:
        places = BoundaryFinder(draft.rendered, draft.script.text)
        layout, text = draft.layout, draft.rendered.text
        ends = _TurnEnds(
            draft.layout,
            places,
            system=_system_end(draft.layout, places),
            last=places.shared_with(self._continued(draft).messages),
        )
        return Prompt(
            rendered=draft.rendered,
            original_tokens=original_tokens,
            plan=constrain_answer(
                draft.conversation,
                draft.offer,
                self._dialect,
                self._tokenizer.controls,
                self._thought(draft),
            ),
            opening=None if layout.prefill else draft.script.opening_in(text, layout.messages),
            boundaries=tuple(sorted({ends.system, ends.last, *ends.earlier()} - {0})),
            pinned_tokens=ends.system,
            breakpoints=tuple(_breakpoints(draft, ends))[-MAX_BREAKPOINTS:],
            sampling=self._dialect.sampling,
        )

    def _thought(self, draft: _Draft) -> BoundedThought:
        conversation, has_prefill = draft.conversation, bool(draft.layout.prefill)
        answer_tokens = None
        if isinstance(conversation, MessagesRequest):
            answer_tokens = min(conversation.max_tokens, self._context_tokens - draft.length)
        return BoundedThought(
            thought_of(self._dialect, draft.rendered.text, has_prefill=has_prefill),
            thinking_budget(self._dialect, conversation, answer_tokens),
        )

    def _continued(self, draft: _Draft) -> Layout:
        """The conversation as the next request may have it: answered, and something said to that."""
        conversation, layout = draft.conversation, draft.layout
        if any(turn.clear_at != "never" for turn in conversation.messages):
            turns = (*conversation.messages, _said("assistant"), _said("user"))
            later = conversation.model_copy(update={"messages": turns})
            return self._laid_out(later, draft.offer, draft.script)
        answer = {"role": "assistant", "content": layout.prefill + _PROBE}
        question = {"role": "user", "content": _PROBE}
        return replace(layout, messages=[*layout.messages, answer, question])


def _said(role: str) -> Turn:
    return Turn.model_validate({"role": role, "content": _PROBE})


def _system_end(layout: Layout, places: BoundaryFinder) -> int:
    """Where the conversation itself begins: what others with the same system prompt share."""
    if layout.turns[0].role != "system":
        return 0
    said = str(layout.messages[1]["content"]).lstrip() if len(layout.messages) > 1 else ""
    other = _OTHER_PROBE if said.startswith(_PROBE) else _PROBE
    return places.shared_with([layout.messages[0], {"role": "user", "content": other}])


@dataclass(frozen=True, slots=True)
class _TurnEnds:
    """Where turns end in the prompt's tokens. system, last: of the system part and of the last turn."""

    layout: Layout
    places: BoundaryFinder
    system: int
    last: int

    def of(self, at: int) -> int:
        """Of one turn."""
        if at >= len(self.layout.ends) - 1:
            return self.last
        if at == 0 and self.layout.turns[0].role == "system":
            return self.system
        return self.places.shared_with(self.layout.messages[: self.layout.ends[at]])

    def earlier(self) -> Iterator[int]:
        """Of the user turns just before the last turn."""
        turns = self.layout.turns[: len(self.layout.ends) - 1]
        users = [at for at, turn in enumerate(turns) if turn.role == "user"]
        return map(self.of, users[-MAX_EARLIER_TURNS:])


def _breakpoints(draft: _Draft, ends: _TurnEnds) -> Iterator[Breakpoint]:
    """The marked places in the order of the prompt: tools, turns, and the one for all that the call may carry."""
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
