"""How hard the model is to think, in the words of its chat template, and after how many tokens a thought is closed.

A client asks by `thinking` and by `output_config.effort` (low, medium, high, xhigh, max); dialects/efforts.py knows the
template's words.
"""

from dataclasses import dataclass

from pensieve.api.options import EnabledThinking, FreeThinking
from pensieve.api.request import Conversation
from pensieve.api.tools import AnyChoice, NamedChoice
from pensieve.dialects.dialect import Dialect, ThinkingForm, Thought, Variables
from pensieve.dialects.efforts import SCALE, nearest_effort

# Budgets of clients that tell no effort: up to so many tokens they mean that one (2026-11: Claude Code's MAX_THINKING_TOKENS is
# 31 999 unless it is set, the API's least is 1024).
_EFFORT_OF_BUDGET = ((4096, "low"), (16_384, "medium"))
# What part of an answer's tokens a thought may take, so that an answer comes after it: with Qwen3.8-27B at xhigh and 3000 tokens
# none did (field report, 2026-08).
_SHARES = {"minimal": 1 / 4, "low": 1 / 4, "medium": 1 / 2}
_MOST = 3 / 4


@dataclass(frozen=True, slots=True)
class BoundedThought:
    """Whether an answer has a thought, and after how many tokens that is closed; None where it is not bounded."""

    state: Thought
    most_tokens: int | None = None


def thinking_variables(dialect: Dialect, conversation: Conversation) -> Variables:
    """What the template is told, for a model that takes it. A model that must call a tool does not think first."""
    form = dialect.thinking
    if form is None:
        return {}
    if not _is_wanted(conversation) and form.off:
        return form.off
    effort = _effort(form, conversation)
    return {**form.on, **(form.efforts[effort] if effort else {})}


def _is_wanted(conversation: Conversation) -> bool:
    if isinstance(conversation.tool_choice, AnyChoice | NamedChoice):
        return False
    match conversation.thinking:
        case EnabledThinking() | FreeThinking(type="adaptive"):
            return True
        case _:
            return False


def _effort(form: ThinkingForm, conversation: Conversation) -> str | None:
    """The template's word. Who wants no thought of a model that always thinks gets a short one."""
    wanted = _wanted_effort(conversation)
    if wanted is None and _is_unwanted(conversation):
        wanted = SCALE[0]
    return nearest_effort(form, wanted)


def _wanted_effort(conversation: Conversation) -> str | None:
    effort = conversation.output_config.effort
    if isinstance(effort, str) and effort in SCALE:
        return effort
    match conversation.thinking:
        case EnabledThinking(budget_tokens=budget):
            return next((word for most, word in _EFFORT_OF_BUDGET if budget <= most), "high")
        case _:
            return None


def _is_unwanted(conversation: Conversation) -> bool:
    return isinstance(conversation.thinking, FreeThinking) and not _is_wanted(conversation)


def thought_of(dialect: Dialect, prompt: str, *, has_prefill: bool) -> Thought:
    """Whether an answer to the rendered `prompt` begins in a thought, may begin with one, or has none."""
    if dialect.thinking is None or has_prefill:
        return "none"
    return dialect.thinking.state_after(prompt)


def thinking_budget(
    dialect: Dialect, conversation: Conversation, answer_tokens: int | None
) -> int | None:
    """How many tokens a thought may have; None where it is not bounded.

    answer_tokens: what the whole answer may have; None where there will be none.
    """
    form = dialect.thinking
    asked = _asked_budget(conversation)
    if answer_tokens is None or form is None or not (form.is_used or asked):
        return asked
    share = _SHARES.get(_wanted_effort(conversation) or "", _MOST) if asked is None else _MOST
    most = max(int(answer_tokens * share), 1)
    return most if asked is None else min(asked, most)


def _asked_budget(conversation: Conversation) -> int | None:
    match conversation.thinking:
        case EnabledThinking(budget_tokens=budget):
            return budget
        case _:
            return None


def hides_thoughts(conversation: Conversation) -> bool:
    """Whether the client wants to see that there was a thought, and not which."""
    match conversation.thinking:
        case EnabledThinking(display=display) | FreeThinking(display=display):
            return display == "omitted"
        case None:
            return False
