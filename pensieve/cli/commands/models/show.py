"""`pensieve show`: shows the facts about one model, before and after it is downloaded."""

import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from json import dumps
from pathlib import Path
from typing import assert_never

from pensieve.cli.client.target import is_to_think
from pensieve.cli.memory_figures import plan_json, verdict
from pensieve.cli.model_facts import is_separate_head, shape_of_installed
from pensieve.cli.ui import output
from pensieve.cli.ui.progress import in_bytes
from pensieve.engine.disk.speculation_record import stored_state
from pensieve.engine.generation import SpeculationState
from pensieve.engine.planning.tower_files import sees
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
    limit = memory_limit_here(inspect(), settings)
    if isinstance(source, LocalModel):
        check_here(source, settings.paths)
        model = _of_folder(source)
    else:
        model = _of_hub(source, settings)
    generation = _generation_config(model, settings) if model.is_here else None
    if json:
        sampling = generation.sampling.report() if generation else None
        output.data(dumps({**_as_json(model, limit, settings), "sampling": sampling}, indent=2))
        return 0
    sampling_row = {"sampling": str(generation.sampling)} if generation else {}
    output.data(
        _wrapped(
            {
                **_fact_rows(model),
                **_memory_rows(model, limit),
                **sampling_row,
                "thinking": _thinking(model, settings),
                "pictures": _pictures(model, settings),
                "speculation": _speculation(model, settings),
            }
        )
    )
    return 0


@dataclass(frozen=True, slots=True)
class ModelFacts:
    source: ModelSource
    folder: Path
    is_here: bool
    size_bytes: int  # 0 if unknown before download
    shape: ModelShape | None  # None if unknown before download
    card: ModelCard | None = None

    @property
    def origin(self) -> str:
        match self.source:
            case LocalModel():
                return "your own folder"
            case EmbeddedModel(repo=repo, requirement=requirement):
                return f"{repo}, in the Python package {requirement}"
            case HubModel(repo=repo):
                return f"{repo}, on the Hugging Face Hub"
            case _:
                assert_never(self.source)

    @property
    def licence(self) -> str:
        if self.card:
            return self.card.licence
        is_local = isinstance(self.source, LocalModel)
        return "see its files" if is_local else "see its page on the Hub"

    @property
    def quantization(self) -> str:
        if self.card:
            return self.card.quantization
        if self.shape is None:
            return ""
        return f"{self.shape.bits} bits" if self.shape.bits else "none"


def _of_hub(source: HubModel | EmbeddedModel, settings: Settings) -> ModelFacts:
    model, card = installed_model(source, settings.paths.models), card_of(source)
    if is_separate_head(model):
        check_here(source, settings.paths)  # refuses it
    size = model.size_bytes or (card.shape.weights_bytes if card else 0)
    return ModelFacts(source, model.folder, model.is_here, size, shape_of_installed(model), card)


def _of_folder(source: LocalModel) -> ModelFacts:
    folder = source.folder
    return ModelFacts(
        source, folder, is_here=True, size_bytes=bytes_of(folder), shape=shape_of(folder)
    )


def _fact_rows(model: ModelFacts) -> dict[str, str]:
    card, name = model.card, model.source.name
    return {
        "name": name,
        "about": card.summary if card else "",
        "quality": str(card.quality or "") if card else "",
        "licence": model.licence,
        "quantization": model.quantization,
        "size": in_bytes(model.size_bytes) if model.size_bytes else "known after download",
        "source": model.origin,
        "revision": _revision(model) or "",
        "folder": str(model.folder) if model.is_here else f"not here: pensieve pull {name}",
        "tried": card.tried if card else "",
    }


def _memory_rows(model: ModelFacts, limit: MemoryLimit) -> dict[str, str]:
    if (shape := model.shape) is None:
        return {}
    fit = estimate_fit(shape, limit)
    fits = verdict(shape, fit).removesuffix(".")
    too_large = f"does not fit into pensieve's limit of {in_bytes(limit.limit_bytes)}"
    return {
        "built for": f"{shape.context_tokens:,} tokens of context",
        "memory": f"{in_bytes(fit.weights_bytes)} for weights,"
        f" {fit.token_bytes / 1024:.3g} KiB"
        f" a token; {in_bytes(fit.needs_bytes)} with a usable context",
        "on this machine": fits if fit.context_tokens else too_large,
    }


def _generation_config(model: ModelFacts, settings: Settings) -> GenerationConfig:
    """Return the sampling of a request without sampling fields; warn about unusable fields."""
    found = read_generation_config(model.folder)
    if found.problems:
        output.warning(f"fields of its {NAME} are ignored: {'; '.join(found.problems)}.")
    return found.with_settings(settings)


def _thinking(model: ModelFacts, settings: Settings) -> str:
    """Describe the model's thinking and Claude Code's use of it; empty before download."""
    if (found := _thinking_abilities(model)) is None:
        return ""
    if found.kind == "none":
        return "not supported by its chat template"
    facts = ["yes"]
    if found.efforts:
        *others, last = found.efforts
        listed = f"{', '.join(others)} or {last}" if others else last
        facts = [f"at {listed} effort, {found.default_effort} by default"]
    facts += [
        "only on request" if found.can_be_off else "always",
        "limited by a budget" if found.kind == "bounded" else "without a limit",
        f"Claude Code asks it to think: {'yes' if is_to_think(settings, found.kind) else 'no'}",
    ]
    return "; ".join(facts)


def _thinking_abilities(model: ModelFacts) -> ThinkingAbilities | None:
    """Return None if the model's files are not here or cannot be read."""
    if not model.is_here:
        return None
    name = model.source.name
    try:
        return thinking_in_folder(ModelFolder(name, name, model.folder))
    except ModelError:
        return None


def _thinking_object(model: ModelFacts, settings: Settings) -> dict[str, object] | None:
    if (found := _thinking_abilities(model)) is None:
        return None
    return {**asdict(found), "claude_code": is_to_think(settings, found.kind)}


def _pictures(model: ModelFacts, settings: Settings) -> str:
    """Return whether the model reads pictures; empty before download."""
    if not model.is_here:
        return ""
    if not sees(model.folder):
        return "not read: the folder has no vision tower that pensieve loads"
    if settings.pictures == "off":
        return "off by the setting (pensieve config set pictures auto)"
    return f"read, with at most {settings.picture_tokens:,} tokens each"


def _speculation_state(model: ModelFacts, settings: Settings) -> SpeculationState | None:
    """Return the setting's state, else that of the model's last loading; None if there is none."""
    if settings.speculation == "off":
        return SpeculationState("setting")
    return stored_state(settings.paths.prefixes, model.folder) if model.is_here else None


def _speculation(model: ModelFacts, settings: Settings) -> str:
    if (state := _speculation_state(model, settings)) is None:
        return "decided at its first start: on where verifying several tokens at once is faster"
    if state.is_on:
        return f"{state.text} (measured at its last start)"
    fix = f" ({state.fix()})" if state.fix() else ""
    return f"{state.text}{fix}; each step yields one token, the answers are the same"


def _as_json(model: ModelFacts, limit: MemoryLimit, settings: Settings) -> dict[str, object]:
    card = model.card
    return {
        "name": model.source.name,
        "repo": None if isinstance(model.source, LocalModel) else model.source.repo,
        "summary": card.summary if card else None,
        "licence": card.licence if card else None,
        "quantization": model.quantization or None,
        "size_bytes": model.size_bytes or None,
        "revision": _revision(model),
        "is_here": model.is_here,
        "folder": str(model.folder) if model.is_here else None,
        "quality": str(card.quality) if card and card.quality else None,
        "agent_rank": card.quality.agent_rank if card and card.quality else None,
        "tried": card.tried if card else None,
        "sources": list(card.sources) if card else [],
        "thinking": _thinking_object(model, settings),
        "sees_pictures": sees(model.folder) if model.is_here else None,
        "speculation": asdict(state) if (state := _speculation_state(model, settings)) else None,
        **(plan_json(model.shape, limit) if model.shape else {}),
    }


def _revision(model: ModelFacts) -> str | None:
    """Return the downloaded revision, else the one a download would take."""
    if snapshot := read_snapshot(model.folder / MARKER):
        return snapshot.revision
    return model.source.revision if isinstance(model.source, HubModel) else None


def _wrapped(facts: Mapping[str, str]) -> str:
    """Return one fact a row; continuation lines are indented to the value column."""
    nonempty = {name: value for name, value in facts.items() if value}
    margin = max(map(len, nonempty)) + 2
    return "\n".join(
        textwrap.fill(
            f"{name:<{margin}}{value}",
            WIDTH,
            subsequent_indent=" " * margin,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for name, value in nonempty.items()
    )
