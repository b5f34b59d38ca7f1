"""Map a request's thinking and effort to template variables, and the thought's token budget."""

from dataclasses import dataclass

from pensieve.api.messages.options import EnabledThinking, UnbudgetedThinking
from pensieve.api.messages.request import Conversation
from pensieve.api.messages.tools import AnyChoice, NamedChoice
from pensieve.dialects.dialect import ThinkingForm, Thought, Variables
from pensieve.dialects.probing.thinking_controls import SCALE, nearest_effort

# Efforts for requests with a budget and no effort, by the largest budget. The API's minimum is
# 1024, Claude Code's default 31 999 (2026-11).
_EFFORT_OF_BUDGET = ((4096, "low"), (16_384, "medium"))
# The share of an answer's tokens that a thought may take, by effort: without a bound, Qwen3.8-27B
# at xhigh spent all of 3000 tokens on the thought (2026-08).
_SHARES = {"minimal": 1 / 4, "low": 1 / 4, "medium": 1 / 2}
_MAX_SHARE = 3 / 4


@dataclass(frozen=True, slots=True)
class BoundedThought:
    state: Thought
    max_tokens: int | None = None  # None: not bounded


def thinking_variables(form: ThinkingForm, conversation: Conversation) -> Variables:
    """Return the template's variables. A model that must call a tool does not think first."""
    if not _is_enabled(conversation) and form.off:
        return form.off
    effort = _effort(form, conversation)
    return {**form.on, **(form.efforts[effort] if effort else {})}


def _is_enabled(conversation: Conversation) -> bool:
    if isinstance(conversation.tool_choice, AnyChoice | NamedChoice):
        return False
    match conversation.thinking:
        case EnabledThinking() | UnbudgetedThinking(type="adaptive"):
            return True
        case _:
            return False


def _effort(form: ThinkingForm, conversation: Conversation) -> str | None:
    """Return the template's effort: the weakest for a disabled thought that has no switch."""
    effort = _requested_effort(conversation)
    if effort is None and _is_disabled(conversation):
        effort = SCALE[0]
    return nearest_effort(form, effort)


def _requested_effort(conversation: Conversation) -> str | None:
    effort = conversation.output_config.effort
    if isinstance(effort, str) and effort in SCALE:
        return effort
    match conversation.thinking:
        case EnabledThinking(budget_tokens=budget):
            return next(
                (effort for max_budget, effort in _EFFORT_OF_BUDGET if budget <= max_budget), "high"
            )
        case _:
            return None


def _is_disabled(conversation: Conversation) -> bool:
    return isinstance(conversation.thinking, UnbudgetedThinking) and not _is_enabled(conversation)


def thinking_budget(
    form: ThinkingForm, conversation: Conversation, answer_tokens: int | None
) -> int | None:
    """Return the tokens that a thought may have; None if it is not bounded.

    answer_tokens: the limit of the whole answer; None if only the prompt is rendered.
    """
    budget = _requested_budget(conversation)
    if answer_tokens is None:
        return budget
    thinks = form.is_used and (_is_enabled(conversation) or not form.off)
    if budget is None and not thinks:
        return None
    share = (
        _SHARES.get(_requested_effort(conversation) or "", _MAX_SHARE)
        if budget is None
        else _MAX_SHARE
    )
    limit = max(int(answer_tokens * share), 1)
    return limit if budget is None else min(budget, limit)


def _requested_budget(conversation: Conversation) -> int | None:
    match conversation.thinking:
        case EnabledThinking(budget_tokens=budget):
            return budget
        case _:
            return None


def hides_thoughts(conversation: Conversation) -> bool:
    """Return whether the client wants the thinking block without its text."""
    match conversation.thinking:
        case EnabledThinking(display=display) | UnbudgetedThinking(display=display):
            return display == "omitted"
        case None:
            return False
