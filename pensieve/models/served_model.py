"""The served model as the front end sees it: names, context, stop tokens, tokenizer, dialect."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pensieve.dialects.dialect import Dialect
from pensieve.dialects.families import plain
from pensieve.models.folder.sight import Sight
from pensieve.settings.resolve import Settings

if TYPE_CHECKING:
    from pensieve.models.tokenizer.chat_tokenizer import ModelTokenizer

Thinking = Literal["none", "unbounded", "bounded"]


@dataclass(frozen=True, slots=True)
class ServedModel:
    name: str  # as people type it and the API lists it: an alias, a Hub repo id or a folder's name
    repo: str  # its Hub repo id, or its folder's path
    folder: Path  # an mlx-lm model folder
    context_tokens: int  # prompt and answer together
    stop_tokens: frozenset[int]
    size_bytes: int  # of the weights on disk
    created_at: int  # Unix seconds of the newest weights file
    tokenizer: "ModelTokenizer"
    dialect: Dialect = plain.DIALECT  # how it writes tool calls and thinking
    sight: Sight | None = None  # None: it does not see pictures

    def with_settings(self, settings: Settings) -> "ServedModel":
        """Return this model with the sampling and the sight that `settings` ask for."""
        sampling = self.dialect.sampling.updated(settings.sampling, "setting")
        dialect = replace(self.dialect, sampling=sampling)
        return replace(self, dialect=dialect, sight=self._sight_with(settings))

    def _sight_with(self, settings: Settings) -> Sight | None:
        # Several machines that share one model have no tower.
        if self.sight is None or settings.pictures == "off" or settings.hostfile:
            return None
        return self.sight.limited(settings.picture_tokens)

    @property
    def thinking(self) -> Thinking:
        """Whether it thinks, and whether its thinking can be ended after a budget."""
        return thinking_of(self.dialect, self.tokenizer.controls)


def thinking_of(dialect: Dialect, controls: Collection[str]) -> Thinking:
    """Return how the dialect thinks. In a grammar only a control token can end thinking."""
    form = dialect.thinking
    if form is None or not form.is_used:
        return "none"
    return "bounded" if form.closing in controls else "unbounded"
