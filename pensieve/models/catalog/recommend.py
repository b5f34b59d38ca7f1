"""Which model of the catalog suits a machine: `--model auto` and `--model auto:fast`.

The order is that of measured quality as an agent, not of size: larger models of the catalog are often the worse ones.
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

# One 27B model did 93 of 100 points of an agent's task with a window of 72 000 tokens, and 12.5 with 25 000; a 35B one
# 37.5 with 37 000 (M1 Max with 32 GB, reported 2026). Claude Code's first request alone has 12 000 to 14 000.
WORKING_CONTEXT_TOKENS = 32_768
# `auto:fast`: models that read no more weights than this for a token, in billions. Between the small dense ones and the
# mixtures of experts (3 to 5) on the one side, and the 9B on the other.
FAST_BILLIONS = 6
# Of a chip that is not named: most Macs with the memory for a dense 27B have a Max.
ASSUMED_GB_S = 400


def resolve_auto(machine: Machine, word: str) -> HubModel | EmbeddedModel:
    """What `word` means on this machine: where it is no Mac, a model that is small enough to try."""
    if machine.kind != "apple_silicon":
        return PHI_3_MINI if machine.has_mlx_cuda else SMOLLM2_135M
    return resolve_auto_on(memory_limit_on(machine), word, machine.chip)


def resolve_auto_on(room: MemoryLimit, word: str, chip_name: str = "") -> HubModel | EmbeddedModel:
    """What `word`, one of `AUTOMATIC_WORDS`, means on a Mac with this room."""
    card = recommended(room, chip_name, is_fast=word == FAST) or roomiest(room)
    return card.model


def recommended(room: MemoryLimit, chip_name: str, *, is_fast: bool = False) -> ModelCard | None:
    """The best agent that gets a context to work in here, and does not crawl; None where there is none.

    Of two builds of one model the more precise. chip_name "": not known.
    """
    bandwidth = bandwidth_gb_s(chip_name) or ASSUMED_GB_S
    able = [
        (card.quality.agent_rank, -card.shape.bits, number, card)
        for number, card in _working(room)
        if card.quality and card.quality.agent_rank
        if (
            card.active_billions <= FAST_BILLIONS
            if is_fast
            else card.min_bandwidth_gb_s <= bandwidth
        )
    ]
    return min(able)[-1] if able else None


def better(chosen: ModelSource, room: MemoryLimit, chip_name: str) -> ModelCard | None:
    """The model that would serve Claude Code better than `chosen`; None where none would, or nothing is known of `chosen`."""
    own = card_of(chosen)
    best = None if room.place.backend == "cpu" else recommended(room, chip_name)
    if own is None or best is None or best.quality is None:
        return None
    own_rank = own.quality.agent_rank if own.quality else None
    best_rank = best.quality.agent_rank
    return best if best_rank and (own_rank is None or best_rank < own_rank) else None


def roomiest(room: MemoryLimit) -> ModelCard:
    """The model with the longest context, for a room in which none gets one to work in (8 GB)."""
    ranked = [card for card in CARDS if card.quality and card.quality.agent_rank]
    return max(ranked, key=lambda card: estimate_fit(card.shape, room).context_tokens)


def fitting(room: MemoryLimit) -> list[ModelCard]:
    """Return the models that get any context here, the longest first."""
    contexts = [(estimate_fit(card.shape, room).context_tokens, card) for card in CARDS]
    found = [entry for entry in contexts if entry[0]]
    return [card for _, card in sorted(found, key=lambda entry: -entry[0])]


def _working(room: MemoryLimit) -> Iterator[tuple[int, ModelCard]]:
    for number, card in enumerate(CARDS):
        if estimate_fit(card.shape, room).context_tokens >= WORKING_CONTEXT_TOKENS:
            yield number, card
