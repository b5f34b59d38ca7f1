"""`pensieve show`: all that is known of one model, before and after it is fetched."""

import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from json import dumps
from pathlib import Path
from typing import assert_never

from pensieve.cli.client.target import is_to_think
from pensieve.cli.memory_figures import figures, verdict
from pensieve.cli.model_facts import shape_of_shelved
from pensieve.cli.ui import output
from pensieve.cli.ui.progress import in_bytes
from pensieve.errors import ModelError
from pensieve.machine import inspect
from pensieve.models.catalog.cards import ModelCard, card_of
from pensieve.models.catalog.find import find
from pensieve.models.catalog.memory_fit import MemoryLimit, estimate_fit, memory_limit_here
from pensieve.models.catalog.sources import EmbeddedModel, HubModel, LocalModel, ModelSource
from pensieve.models.fetching.fetch import check_here
from pensieve.models.folder.config_shape import ModelShape, shape_of
from pensieve.models.folder.generation_config import NAME, GenerationConfig, read_generation_config
from pensieve.models.folder.installed import bytes_of, installed_model
from pensieve.models.folder.snapshot import MARKER, ModelFolder, read_snapshot
from pensieve.models.folder.thinking import ThinkingAbilities, thinking_in_folder
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import Settings

WIDTH = 79


def show(name: str, /, *, json: bool = False) -> int:
    """Show a model: context, quantization, size, licence, memory, source, folder.

    For example:
      pensieve show qwen3.5-9b

    Parameters
    ----------
    name
        A name that `pensieve models` lists, a Hugging Face repository (owner/name), or
        the folder of an mlx-lm model.
    json
        Print one JSON object instead.
    """
    settings = settings_module.resolve()
    source = find(name)
    room = memory_limit_here(inspect(), settings)
    if isinstance(source, LocalModel):
        check_here(source, settings.paths)
        known = _of_folder(source)
    else:
        known = _of_hub(source, settings)
    generation = _generation_config(known, settings) if known.is_here else None
    if json:
        sampling = generation.sampling.report() if generation else None
        output.data(dumps({**_object(known, room, settings), "sampling": sampling}, indent=2))
        return 0
    sampled = {"sampling": str(generation.sampling)} if generation else {}
    thinking = {"thinking": _thinking(known, settings)}
    output.data(_wrapped({**_facts(known), **_memory(known, room), **sampled, **thinking}))
    return 0


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one model. size_bytes 0, shape None: nothing before it is fetched."""

    source: ModelSource
    folder: Path
    is_here: bool
    size_bytes: int
    shape: ModelShape | None
    card: ModelCard | None = None

    @property
    def origin(self) -> str:
        """Where it comes from."""
        match self.source:
            case LocalModel():
                return "a folder of yours"
            case EmbeddedModel(repo=repo, requirement=requirement):
                return f"{repo}, in the Python package {requirement}"
            case HubModel(repo=repo):
                return f"{repo}, on the Hugging Face Hub"
            case _:
                assert_never(self.source)

    @property
    def licence(self) -> str:
        """What is known of it; pensieve reads no licence."""
        if self.card:
            return self.card.licence
        is_local = isinstance(self.source, LocalModel)
        return "as it came with its files" if is_local else "see its page on the Hub"

    @property
    def quantization(self) -> str:
        """Of most weights."""
        if self.card:
            return self.card.quantization
        if self.shape is None:
            return ""
        return f"{self.shape.bits} bits" if self.shape.bits else "none"


def _of_hub(source: HubModel | EmbeddedModel, settings: Settings) -> Known:
    model, card = installed_model(source, settings.paths.models), card_of(source)
    size = model.size_bytes or (card.shape.weights_bytes if card else 0)
    return Known(source, model.folder, model.is_here, size, shape_of_shelved(model), card)


def _of_folder(source: LocalModel) -> Known:
    folder = source.folder
    return Known(source, folder, is_here=True, size_bytes=bytes_of(folder), shape=shape_of(folder))


def _facts(known: Known) -> dict[str, str]:
    card, name = known.card, known.source.name
    return {
        "name": name,
        "about": card.summary if card else "",
        "quality": str(card.quality or "") if card else "",
        "licence": known.licence,
        "quantization": known.quantization,
        "size": in_bytes(known.size_bytes) if known.size_bytes else "known once it is fetched",
        "source": known.origin,
        "revision": _revision(known) or "",
        "folder": str(known.folder) if known.is_here else f"not here: pensieve pull {name}",
        "tried": card.tried if card else "",
    }


def _memory(known: Known, room: MemoryLimit) -> dict[str, str]:
    if (shape := known.shape) is None:
        return {}
    fitted = estimate_fit(shape, room)
    fits = verdict(shape, fitted).removesuffix(".")
    too_large = f"does not fit into the {in_bytes(room.limit_bytes)} that pensieve may use"
    return {
        "built for": f"{shape.context_tokens:,} tokens of context",
        "memory": f"{in_bytes(fitted.weights_bytes)} for weights, {fitted.token_bytes / 1024:.3g} KiB"
        f" a token; {in_bytes(fitted.needs_bytes)} with room to work",
        "on this machine": fits if fitted.context_tokens else too_large,
    }


def _generation_config(known: Known, settings: Settings) -> GenerationConfig:
    """How a server with `settings` answers a request that has no sampling fields."""
    found = read_generation_config(known.folder)
    if found.complaints:
        output.warning(f"left out of its {NAME}: {'; '.join(found.complaints)}.")
    return found.with_settings(settings)


def _thinking(known: Known, settings: Settings) -> str:
    """Describe the model's thinking and Claude Code's use of it; empty before it is fetched."""
    if (found := _abilities(known)) is None:
        return ""
    if found.kind == "none":
        return "no sign of it in its chat template"
    facts = ["yes"]
    if found.efforts:
        *words, last = found.efforts
        listed = f"{', '.join(words)} or {last}" if words else last
        facts = [f"at {listed} effort, {found.default_effort} unless asked"]
    facts += [
        "only when asked" if found.can_be_off else "always",
        "a thought ends after its budget" if found.kind == "bounded" else "nothing ends a thought",
        f"Claude Code has it think: {'yes' if is_to_think(settings, found.kind) else 'no'}",
    ]
    return "; ".join(facts)


def _abilities(known: Known) -> ThinkingAbilities | None:
    """Return None if the model's files are not here or cannot be read."""
    if not known.is_here:
        return None
    name = known.source.name
    try:
        return thinking_in_folder(ModelFolder(name, name, known.folder))
    except ModelError:
        return None


def _thinking_object(known: Known, settings: Settings) -> dict[str, object] | None:
    if (found := _abilities(known)) is None:
        return None
    return {**asdict(found), "claude_code": is_to_think(settings, found.kind)}


def _object(known: Known, room: MemoryLimit, settings: Settings) -> dict[str, object]:
    card = known.card
    return {
        "name": known.source.name,
        "repo": None if isinstance(known.source, LocalModel) else known.source.repo,
        "summary": card.summary if card else None,
        "licence": card.licence if card else None,
        "quantization": known.quantization or None,
        "size_bytes": known.size_bytes or None,
        "revision": _revision(known),
        "is_here": known.is_here,
        "folder": str(known.folder) if known.is_here else None,
        "quality": str(card.quality) if card and card.quality else None,
        "agent_rank": card.quality.agent_rank if card and card.quality else None,
        "tried": card.tried if card else None,
        "sources": list(card.sources) if card else [],
        "thinking": _thinking_object(known, settings),
        **(figures(known.shape, room) if known.shape else {}),
    }


def _revision(known: Known) -> str | None:
    """What is here, else what would be fetched."""
    if snapshot := read_snapshot(known.folder / MARKER):
        return snapshot.revision
    return known.source.revision if isinstance(known.source, HubModel) else None


def _wrapped(facts: Mapping[str, str]) -> str:
    """One fact a row within the width; a long value goes on below itself."""
    shown = {name: value for name, value in facts.items() if value}
    margin = max(map(len, shown)) + 2
    return "\n".join(
        textwrap.fill(
            f"{name:<{margin}}{value}",
            WIDTH,
            subsequent_indent=" " * margin,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for name, value in shown.items()
    )
