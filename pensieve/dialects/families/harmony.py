"""gpt-oss: an answer consists of channels.

Thoughts are in `analysis`, text in `final`, one call in `commentary`, which ends the answer. The
template writes a call only together with the result that follows it.
"""

from pensieve.dialects.dialect import CallForm, Dialect, ThinkingForm

DIALECT = Dialect(
    "harmony",
    CallForm(
        opening="<|channel|>commentary to=functions.",
        before_name="",
        after_name=" <|constrain|>json<|message|>",
        after_arguments="<|call|>",
        closing="",
        between="",
    ),
    writer="template",
    thinking=ThinkingForm(
        "<|channel|>analysis<|message|>",
        "<|end|>",
        after="<|start|>assistant",
    ),
    calls_with_results=True,
    text_opening="<|channel|>final<|message|>",
    silent=(
        "<|channel|>final<|message|>",
        "<|channel|>commentary<|message|>",
        "<|end|>",
        "<|start|>assistant",
    ),
)


def dialect_in(template: str) -> Dialect | None:
    return DIALECT if "<|channel|>analysis<|message|>" in template else None
