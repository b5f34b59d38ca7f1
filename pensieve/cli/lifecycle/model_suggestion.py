"""The line in which `start` and `models` name the model that would serve Claude Code better on this Mac."""

from pensieve.cli.ui.progress import in_bytes
from pensieve.errors import ModelUnavailableError
from pensieve.machine import Machine
from pensieve.models.catalog.find import find
from pensieve.models.catalog.memory_fit import MemoryLimit, estimate_fit, memory_limit_here
from pensieve.models.catalog.recommend import better, recommended, roomiest
from pensieve.models.catalog.sources import ModelSource
from pensieve.settings.resolve import Settings


def suggestion(settings: Settings, machine: Machine) -> str | None:
    """The better model and the command for it; None where the chosen one is the best here, or is not of the catalog."""
    room = memory_limit_here(machine, settings)
    if machine.kind != "apple_silicon" or room.place.backend == "cpu":
        return None
    try:
        chosen = find(settings.model)
    except ModelUnavailableError:
        return None
    card = better(chosen, room, machine.chip)
    if card is None:
        return None if recommended(room, machine.chip) else _longest(chosen, room)
    name, context = card.model.name, estimate_fit(card.shape, room).context_tokens
    return (
        f"{name} serves Claude Code better on this Mac than {chosen.name}: it is the better agent,"
        f"\nwith {context:,} tokens of context ({in_bytes(card.shape.weights_bytes)})."
        f" To have it served:\n  pensieve use {name}"
    )


def _longest(chosen: ModelSource, room: MemoryLimit) -> str | None:
    card = roomiest(room)
    context = estimate_fit(card.shape, room).context_tokens
    if card.model == chosen or not context:
        return None
    return (
        "This Mac's memory holds no model with the context that Claude Code works well with. The longest"
        f"\nhas {card.model.name}: {context:,} tokens ({in_bytes(card.shape.weights_bytes)})."
        f" To have it served:\n  pensieve use {card.model.name}"
    )
