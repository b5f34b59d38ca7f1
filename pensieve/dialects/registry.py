"""Find a model's dialect from its chat template. A new dialect is a new module and an entry
here.
"""

from collections.abc import Collection
from dataclasses import replace
from types import ModuleType

from pensieve.dialects.dialect import Dialect
from pensieve.dialects.families import (
    deepseek,
    gemma,
    glm,
    harmony,
    hermes,
    kimi,
    lfm2,
    llama3,
    minimax,
    mistral,
    plain,
    qwen_coder,
)
from pensieve.dialects.probing.probe import ANSWER, MORE, QUESTION, QUESTION_TURN, Probe, Render
from pensieve.dialects.probing.thinking_controls import with_abilities
from pensieve.dialects.probing.thinking_marks import text_opening, thinking_marks
from pensieve.dialects.probing.turn_ends import CALL, RESULT, call_turn

# The order matters: some marks also occur in templates of later families.
DIALECTS: tuple[ModuleType, ...] = (
    *(harmony, minimax, gemma, glm, lfm2, kimi, deepseek, qwen_coder, mistral, hermes, llama3),
)

_TOOL = {
    "type": "function",
    "function": {
        "name": CALL.name,
        "description": "zebra",
        "parameters": {"type": "object", "properties": {"violin": {"type": "string"}}},
    },
}


def dialect_of(
    template: str, render: Render, controls: Collection[str], names: Collection[str] = ()
) -> Dialect:
    """Return the first known dialect whose tools the chat template writes, else the plain one.

    controls: texts of the model's control tokens. names: variables that the template reads.
    """
    found = (dialect for module in DIALECTS if (dialect := module.dialect_in(template)))
    probe = Probe(render, controls, names)
    dialect = next(
        (candidate for candidate in found if _writes_tools(probe, candidate)), plain.DIALECT
    )
    form = thinking_marks(probe, template, dialect.thinking)
    if form is None:
        return dialect
    silent_marks: tuple[str, ...] = ()
    if form.after and dialect.thinking is None:
        around_text = dict.fromkeys([form.after.strip(), text_opening(probe)])
        silent_marks = tuple(filter(None, around_text))
    form = with_abilities(form, probe)
    return replace(dialect, thinking=form, silent=(*dialect.silent, *silent_marks))


def _writes_tools(probe: Probe, dialect: Dialect) -> bool:
    """Return whether the template writes tools, calls and results: some silently omit them."""
    text = probe.text([QUESTION_TURN, call_turn(dialect), RESULT], {"tools": [_TOOL]}) or ""
    offsets = [text.find(marker) for marker in ("zebra", ANSWER, MORE)]
    return -1 not in offsets and QUESTION in text
