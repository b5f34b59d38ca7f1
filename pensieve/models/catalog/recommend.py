"""Recommend a catalog model for a machine: `--model auto` and `--model auto:fast`.

Models are ordered by measured quality as an agent, not by size: larger ones are often worse.
"""

from collections.abc import Iterator

from pensieve.machine import Machine
from pensieve.models.catalog.cards import CARDS, ModelCard, card_of
from pensieve.models.catalog.chips import bandwidth_gb_s
from pensieve.models.catalog.memory_fit import MemoryLimit, estimate_fit, memory_limit_on
from pensieve.models.catalog.sources import (
    FAST,
    PHI_3_MINI,
    SMOLLM2_135M,
    EmbeddedModel,
    HubModel,
    ModelSource,
)

# A 27B model scored 93 of 100 points in an agent's task with a window of 72 000 tokens, and 12.5
# with 25 000; a 35B one 37.5 with 37 000 (M1 Max with 32 GB, reported 2026). Claude Code's first
# request alone has 4 000 to 12 000 (docs/clients.md).
WORKING_CONTEXT_TOKENS = 32_768
# `auto:fast` takes models that read at most this many billion weights per token. It separates the
# small dense models and the mixtures of experts (3 to 5) from the 9B.
MAX_FAST_BILLIONS = 6
# For an unknown chip: most Macs with enough memory for a dense 27B have a Max.
ASSUMED_GB_S = 400


def resolve_auto(machine: Machine, name: str) -> HubModel | EmbeddedModel:
    """Return the model that `name` selects on this machine; elsewhere than on a Mac a small one
    to try.
    """
    if machine.kind != "apple_silicon":
        return PHI_3_MINI if machine.has_mlx_cuda else SMOLLM2_135M
    return resolve_auto_on(memory_limit_on(machine), name, machine.chip)


def resolve_auto_on(limit: MemoryLimit, name: str, chip_name: str = "") -> HubModel | EmbeddedModel:
    """Return the model that `name`, one of `AUTO_NAMES`, selects on a Mac with this limit."""
    card = recommended(limit, chip_name, is_fast=name == FAST) or longest_context(limit)
    return card.model


def recommended(limit: MemoryLimit, chip_name: str, *, is_fast: bool = False) -> ModelCard | None:
    """Return the best agent with a sufficient context and speed here; None without one.

    Of two builds of one model it is the more precise. An empty `chip_name` means unknown.
    """
    bandwidth = bandwidth_gb_s(chip_name) or ASSUMED_GB_S
    candidates = [
        (card.quality.agent_rank, -card.shape.bits, number, card)
        for number, card in _working(limit)
        if card.quality and card.quality.agent_rank
        if (
            card.active_billions <= MAX_FAST_BILLIONS
            if is_fast
            else card.min_bandwidth_gb_s <= bandwidth
        )
    ]
    return min(candidates)[-1] if candidates else None


def better(chosen: ModelSource, limit: MemoryLimit, chip_name: str) -> ModelCard | None:
    """Return the model that serves Claude Code better than `chosen`; None without one, or if
    `chosen` has no card.
    """
    own = card_of(chosen)
    best = None if limit.device.backend == "cpu" else recommended(limit, chip_name)
    if own is None or best is None or best.quality is None:
        return None
    own_rank = own.quality.agent_rank if own.quality else None
    best_rank = best.quality.agent_rank
    return best if best_rank and (own_rank is None or best_rank < own_rank) else None


def longest_context(limit: MemoryLimit) -> ModelCard:
    """Return the model with the longest context, for machines on which none is sufficient (8
    GB).
    """
    ranked = [card for card in CARDS if card.quality and card.quality.agent_rank]
    return max(ranked, key=lambda card: estimate_fit(card.shape, limit).context_tokens)


def fitting(limit: MemoryLimit) -> list[ModelCard]:
    """Return the models that get any context here, the longest context first."""
    contexts = [(estimate_fit(card.shape, limit).context_tokens, card) for card in CARDS]
    positive = [entry for entry in contexts if entry[0]]
    return [card for _, card in sorted(positive, key=lambda entry: -entry[0])]


def _working(limit: MemoryLimit) -> Iterator[tuple[int, ModelCard]]:
    for number, card in enumerate(CARDS):
        if estimate_fit(card.shape, limit).context_tokens >= WORKING_CONTEXT_TOKENS:
            yield number, card
