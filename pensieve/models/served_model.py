"""The model that this server serves, as the front end knows it: names, context, stop tokens, tokenizer."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pensieve.dialects.dialect import Dialect
from pensieve.dialects.families import plain
from pensieve.settings.resolve import Settings

if TYPE_CHECKING:
    from pensieve.models.tokenizer.chat_tokenizer import ModelTokenizer

Thinking = Literal["none", "unbounded", "bounded"]


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What answers now.

    name: what people type and the API lists (an alias, a Hub repo id, or a folder's name). repo: its Hub name, or
    its folder's path. folder: an mlx-lm model folder. context_tokens: prompt and answer together.
    created_at: Unix seconds when its weights were put here. size_bytes: the weights on disk. dialect: how it writes calls and thoughts.
    """

    name: str
    repo: str
    folder: Path
    context_tokens: int
    stop_tokens: frozenset[int]
    size_bytes: int
    created_at: int
    tokenizer: "ModelTokenizer"
    dialect: Dialect = plain.DIALECT

    def with_settings(self, settings: Settings) -> "ServedModel":
        """This model, sampled by the values of `settings` where they have one."""
        sampling = self.dialect.sampling.updated(settings.sampling, "setting")
        return replace(self, dialect=replace(self.dialect, sampling=sampling))

    @property
    def thinking(self) -> Thinking:
        """Whether it thinks, and whether a thought can be closed after its budget."""
        return thinking_of(self.dialect, self.tokenizer.controls)


def thinking_of(dialect: Dialect, controls: Collection[str]) -> Thinking:
    """Return whether the dialect thinks. Only a control token can close a thought in a grammar."""
    form = dialect.thinking
    if form is None or not form.is_used:
        return "none"
    return "bounded" if form.closing in controls else "unbounded"
