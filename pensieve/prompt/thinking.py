"""Whether the model is to think, as its chat template is told it, and what the rendered prompt made of that."""

from collections.abc import Mapping

from pensieve.api.options import EnabledThinking, FreeThinking
from pensieve.api.request import Conversation
from pensieve.api.tools import AnyChoice, NamedChoice
from pensieve.dialects.dialect import Dialect
from pensieve.dialects.grammar import Thought

# What templates know of.
_EFFORTS = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}


def thinking_variables(dialect: Dialect, conversation: Conversation) -> Mapping[str, object]:
    """The template's switches, for a model that has them. A model that must call a tool does not think first."""
    form = dialect.thinking
    if form is None:
        return {}
    variables: dict[str, object] = {}
    if form.switch is not None:
        variables[form.switch] = _is_wanted(conversation)
    effort = conversation.output_config.effort
    if form.effort is not None and isinstance(effort, str) and effort in _EFFORTS:
        variables[form.effort] = _EFFORTS[effort]
    return variables


def _is_wanted(conversation: Conversation) -> bool:
    if isinstance(conversation.tool_choice, AnyChoice | NamedChoice):
        return False
    match conversation.thinking:
        case EnabledThinking() | FreeThinking(type="adaptive"):
            return True
        case _:
            return False


def thought_of(dialect: Dialect, prompt: str, *, has_prefill: bool) -> Thought:
    """Whether an answer to the rendered `prompt` begins in a thought, may begin with one, or has none."""
    form = dialect.thinking
    if form is None or has_prefill:
        return "none"
    end = prompt.rstrip()
    if end.endswith(form.opening):
        return "begun"
    return "none" if end.endswith(form.closing) else "possible"


def thinking_budget(conversation: Conversation) -> int | None:
    """How many tokens a thought may have."""
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
