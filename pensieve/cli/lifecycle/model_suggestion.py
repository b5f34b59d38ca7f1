"""The hint of `start` and `models` that names a better model for Claude Code on this Mac."""

from pensieve.cli.ui.progress import in_bytes
from pensieve.errors import ModelUnavailableError
from pensieve.machine import Machine
from pensieve.models.catalog.find import find
from pensieve.models.catalog.memory_fit import MemoryLimit, estimate_fit, memory_limit_here
from pensieve.models.catalog.recommend import better, longest_context, recommended
from pensieve.models.catalog.sources import ModelSource
from pensieve.settings.resolve import Settings


def suggestion(settings: Settings, machine: Machine) -> str | None:
    """Return the hint; None if the chosen model is the best here or not in the catalog."""
    limit = memory_limit_here(machine, settings)
    if machine.kind != "apple_silicon" or limit.device.backend == "cpu":
        return None
    try:
        chosen = find(settings.model)
    except ModelUnavailableError:
        return None
    card = better(chosen, limit, machine.chip)
    if card is None:
        return None if recommended(limit, machine.chip) else _longest(chosen, limit)
    name, context = card.model.name, estimate_fit(card.shape, limit).context_tokens
    return (
        f"{name} works better with Claude Code on this Mac than {chosen.name}: it is the better"
        f" agent,\nwith {context:,} tokens of context ({in_bytes(card.shape.weights_bytes)})."
        f" Make it the default:\n  pensieve use {name}"
    )


def _longest(chosen: ModelSource, limit: MemoryLimit) -> str | None:
    card = longest_context(limit)
    context = estimate_fit(card.shape, limit).context_tokens
    if card.model == chosen or not context:
        return None
    return (
        "No model fits this Mac's memory with the context that Claude Code needs to work well."
        f"\n{card.model.name} has the longest: {context:,} tokens"
        f" ({in_bytes(card.shape.weights_bytes)})."
        f" Make it the default:\n  pensieve use {card.model.name}"
    )
