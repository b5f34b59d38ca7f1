"""The line in which `start` and `models` name the model that would serve Claude Code better on this Mac."""

from pensieve.cli.progress import in_bytes
from pensieve.errors import ModelUnavailableError
from pensieve.machine import Machine
from pensieve.models.advice import better
from pensieve.models.catalog import find
from pensieve.models.fit import fit, room_here
from pensieve.settings import Settings


def suggestion(settings: Settings, machine: Machine) -> str | None:
    """The better model and the command for it; None where the chosen one is the best here, or is not of the catalog."""
    if machine.kind != "apple_silicon":
        return None
    room = room_here(machine, settings)
    try:
        chosen = find(settings.model)
    except ModelUnavailableError:
        return None
    card = better(chosen, room, machine.chip)
    if card is None:
        return None
    name, context = card.model.name, fit(card.shape, room).context_tokens
    return (
        f"{name} serves Claude Code better on this Mac than {chosen.name}: it is the better agent,"
        f"\nwith {context:,} tokens of context ({in_bytes(card.shape.weights_bytes)})."
        f" To have it served:\n  pensieve use {name}"
    )
