"""Which model of the catalog suits a machine: `--model auto`."""

from pensieve.machine import Machine
from pensieve.models.cards import CARDS
from pensieve.models.catalog import PHI_3_MINI, SMOLLM2_135M, EmbeddedModel, HubModel
from pensieve.models.fit import fit, room_of_mac

# Claude Code's first request is 12 000 to 14 000 tokens (2.1.330, 2026-11); twice that leaves room to work.
WORKING_CONTEXT_TOKENS = 24_576


def suited(machine: Machine) -> HubModel | EmbeddedModel:
    """On Apple silicon the largest that gets a context to work in; elsewhere one that is small enough to try."""
    if machine.kind != "apple_silicon":
        return PHI_3_MINI if machine.has_mlx_cuda else SMOLLM2_135M
    room = room_of_mac(machine.memory_bytes)
    roomy = [
        card for card in CARDS if fit(card.shape, room).context_tokens >= WORKING_CONTEXT_TOKENS
    ]
    return max(roomy, key=lambda card: card.shape.weights_bytes).model if roomy else PHI_3_MINI
