"""The facts about a model that several commands show: size, context, source, state."""

from pensieve.cli.ui.progress import in_bytes
from pensieve.daemon.server_record import current
from pensieve.engine.planning.mtp_files import config_of, is_head
from pensieve.engine.planning.tower_files import sees
from pensieve.errors import ModelError, UsageError
from pensieve.models.catalog.cards import card_of
from pensieve.models.catalog.find import find
from pensieve.models.catalog.memory_fit import MemoryLimit, estimate_fit
from pensieve.models.catalog.sources import EmbeddedModel, HubModel, LocalModel
from pensieve.models.folder.architecture_support import model_for_head
from pensieve.models.folder.config_shape import ModelShape, shape_of
from pensieve.models.folder.installed import InstalledModel
from pensieve.settings.resolve import Settings

GIB = 2**30


# The keys are those of `pensieve models --json`; null means that the shape is unknown.
def model_entry(model: InstalledModel, limit: MemoryLimit, settings: Settings) -> dict[str, object]:
    shape = shape_of_installed(model)
    card = card_of(model.source)
    fit = estimate_fit(shape, limit) if shape else None
    return {
        "name": model.source.name,
        "repo": model.source.repo,
        "size_bytes": model.size_bytes or (shape.weights_bytes if shape else None),
        "needs_bytes": fit.needs_bytes if fit else None,
        "context_tokens": fit.context_tokens if fit else None,
        "is_here": model.is_here,
        "sees_pictures": sees(model.folder) if model.is_here else None,
        "is_head": is_separate_head(model),
        "partial_bytes": model.partial_bytes,
        "is_served": is_served(model, settings),
        "is_chosen": model.source.name == settings.model,
        "summary": card.summary if card else None,
    }


def row(entry: dict[str, object]) -> str:
    """Return one line of the list. A name wider than its column shifts the other columns."""
    mark = "*" if entry["is_served"] else " "
    line = f"{mark} {entry['name']:<20} {_bytes(entry['size_bytes']):>8}"
    if not entry["is_head"]:
        line += f" {_bytes(entry['needs_bytes']):>9} {_context(entry['context_tokens']):>13}"
    return f"{line}  {_state(entry)}".rstrip()


def is_separate_head(model: InstalledModel) -> bool:
    """Whether it is an MTP head, which is no model."""
    return model.is_here and is_head(config_of(model.folder))


def shape_of_installed(model: InstalledModel) -> ModelShape | None:
    """Return the shape from the model's files, else from the catalog; None if both lack it."""
    if is_separate_head(model):
        return None
    try:
        if model.is_here:
            return shape_of(model.folder)
    except ModelError:
        return None
    card = card_of(model.source)
    return card.shape if card else None


def is_served(model: InstalledModel, settings: Settings) -> bool:
    record = current(settings.paths)
    return record is not None and record.model == model.source.name


def _state(entry: dict[str, object]) -> str:
    if entry["is_head"]:
        return f"MTP head for {model_for_head(str(entry['repo']))}"
    if entry["is_served"]:
        return "served now"
    if entry["is_here"]:
        here = "here, chosen" if entry["is_chosen"] else "here"
        return f"{here}, sees pictures" if entry["sees_pictures"] else here
    if entry["partial_bytes"]:
        return f"{_bytes(entry['partial_bytes'])} here"
    return "chosen" if entry["is_chosen"] else ""


def _bytes(count: object) -> str:
    return in_bytes(count) if isinstance(count, int) else "?"


def _context(tokens: object) -> str:
    if not isinstance(tokens, int):
        return "?"
    return f"{tokens:,}" if tokens else "does not fit"


def source_of(name: str) -> HubModel | EmbeddedModel:
    """Return what can be downloaded under `name`. Raises `ModelUnavailableError`, `UsageError`."""
    source = find(name)
    if isinstance(source, LocalModel):
        raise UsageError(
            f"{source.folder} is your own folder: pensieve does not download or remove it.",
            hint=f"Serve it directly:\n  pensieve start --model {name}",
        )
    return source
