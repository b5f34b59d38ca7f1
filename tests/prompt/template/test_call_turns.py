"""Find what a chat template can write of a turn with calls."""

import pytest

from pensieve.prompt.template.call_turns import CallTurns, call_turns_of
from tests.prompt.chat_models import DIALECTS, MISTRAL_TEMPLATE, chat_model

# The same, but a call after a text of the same turn is refused, too.
ALTERNATING = MISTRAL_TEMPLATE.replace(
    "(message.role == 'assistant' and not message.tool_calls)", "message.role == 'assistant'"
)


@pytest.mark.parametrize(("template", "is_apart"), [(MISTRAL_TEMPLATE, True), (ALTERNATING, False)])
def test_text_before_calls_is_a_turn_of_its_own_if_the_template_takes_it(
    template: str, is_apart: bool
) -> None:
    found = call_turns_of(chat_model("mistral", template), DIALECTS["mistral"], {})
    assert (found.takes_text, found.takes_text_apart) == (False, is_apart)


@pytest.mark.parametrize(
    ("turns", "words"),
    [
        (CallTurns(), []),
        (CallTurns(takes_several=False), ["takes no parallel calls"]),
        (CallTurns(takes_text=False), ["the text is a turn of its own"]),
        (CallTurns(takes_text=False, takes_text_apart=False), ["lose their text"]),
    ],
)
def test_each_limit_of_a_template_is_described(turns: CallTurns, words: list[str]) -> None:
    limits = list(turns.limits())
    assert len(limits) == len(words)
    assert all(word in limit for word, limit in zip(words, limits, strict=True))
