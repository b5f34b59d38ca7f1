"""What is known of the catalog's models before they are fetched: size, licence, the shape that memory is planned by.

Every figure comes from what was published, by the sources that each card names (read 2026-11-26), and not from a try:
of these, only smollm2-135m has been run by pensieve's makers with its real weights. The engine measures again at load.
"""

from dataclasses import dataclass

from pensieve.models.catalog import (
    GPT_OSS_20B,
    PHI_3_MINI,
    QWEN3_4B,
    QWEN3_CODER_30B,
    QWEN3_CODER_NEXT,
    QWEN35_4B,
    QWEN35_9B,
    QWEN36_35B,
    SMOLLM2_135M,
    EmbeddedModel,
    HubModel,
    ModelSource,
)
from pensieve.models.shape import PHI_3_MINI_SHAPE, ModelShape

UNTRIED = "not tried with its real weights by pensieve's makers"
EXO = "exo-explore/exo: resources/inference_model_cards/mlx-community--{}.toml (size, layers, KV heads, context)"
QWEN35_LAYERS = (
    "Qwen3.5 configs (head_dim 256, full_attention_interval 4); mlx_lm/models/qwen3_5.py"
)


@dataclass(frozen=True, slots=True)
class Card:
    """summary: what it is good for, in a line. tried: how far it was run here. sources: where the figures come from."""

    model: HubModel | EmbeddedModel
    summary: str
    licence: str
    quantization: str
    shape: ModelShape
    sources: tuple[str, ...]
    tried: str = UNTRIED


CARDS: tuple[Card, ...] = (
    Card(
        PHI_3_MINI,
        "the default: small, for text and code; a costly KV cache",
        "MIT",
        "4 bits in groups of 64",
        PHI_3_MINI_SHAPE,
        ("config.json of microsoft/Phi-3-mini-128k-instruct",),
        "its architecture and tokenizer were run with random weights only",
    ),
    Card(
        SMOLLM2_135M,
        "tiny, needs no Hub: to see that everything works",
        "Apache-2.0",
        "4 bits in groups of 32 (GGUF Q4_1)",
        ModelShape(98_000_000, 8192, layers=30, kv_heads=3, head_dim=64, bits=4),
        ("its GGUF's own metadata",),
        "run with its real weights on Linux",
    ),
    Card(
        QWEN3_4B,
        "follows instructions, uses tools; for 8 GB",
        "Apache-2.0",
        "4 bits in groups of 64",
        ModelShape(2_263_000_000, 262_144, layers=36, kv_heads=8, head_dim=128, bits=4),
        (
            "model card of Qwen/Qwen3-4B-Instruct-2507 (layers, KV heads, context, licence)",
            EXO.format("Qwen3-4B-4bit") + "; the size is of that older model of the same shape",
        ),
    ),
    Card(
        QWEN35_4B,
        "thinks, uses tools, long context for little memory; for 8 GB",
        "Apache-2.0",
        "4 bits in groups of 64",
        ModelShape(3_060_000_000, 262_144, layers=8, kv_heads=4, head_dim=256, bits=4),
        ("file list of mlx-community/Qwen3.5-4B-MLX-4bit (3.06 GB)", QWEN35_LAYERS),
    ),
    Card(
        QWEN35_9B,
        "thinks, uses tools, long context for little memory; for 16 GB",
        "Apache-2.0",
        "4 bits in groups of 64",
        ModelShape(5_950_062_560, 262_144, layers=8, kv_heads=4, head_dim=256, bits=4),
        (EXO.format("Qwen3.5-9B-4bit"), QWEN35_LAYERS),
    ),
    Card(
        GPT_OSS_20B,
        "thinks, uses tools, quick (3.6 of 21 billion weights a token); for 24 GB",
        "Apache-2.0",
        "MXFP4, the rest 8 bits",
        ModelShape(12_025_908_224, 131_072, layers=12, kv_heads=8, head_dim=64, bits=4),
        (
            EXO.format("gpt-oss-20b-MXFP4-Q8"),
            "config.json of openai/gpt-oss-20b (head_dim 64, every other layer sees 128 tokens)",
            "ml-explore/mlx-lm issue 644: does not fit into 16 GB",
        ),
    ),
    Card(
        QWEN3_CODER_30B,
        "made for coding agents, quick (3.3 of 30.5 billion weights); for 32 GB",
        "Apache-2.0",
        "4 bits in groups of 64",
        ModelShape(17_180_000_000, 262_144, layers=48, kv_heads=4, head_dim=128, bits=4),
        ("model card of Qwen/Qwen3-Coder-30B-A3B-Instruct (layers, KV heads, context, licence)",),
    ),
    Card(
        QWEN36_35B,
        "thinks, uses tools, quick (3 of 35 billion weights a token); for 36 GB",
        "Apache-2.0",
        "4 bits in groups of 64",
        ModelShape(20_401_929_952, 262_144, layers=10, kv_heads=2, head_dim=256, bits=4),
        (EXO.format("Qwen3.6-35B-A3B-4bit"), QWEN35_LAYERS),
    ),
    Card(
        QWEN3_CODER_NEXT,
        "made for coding agents, the largest here (3 of 80 billion); for 96 GB",
        "Apache-2.0",
        "4 bits in groups of 64",
        ModelShape(45_644_286_500, 262_144, layers=12, kv_heads=2, head_dim=256, bits=4),
        (
            EXO.format("Qwen3-Coder-Next-4bit"),
            "config.json of the Qwen3-Coder-Next family (head_dim 256, full_attention_interval 4)",
        ),
    ),
)


def card_of(source: ModelSource) -> Card | None:
    """What is known of `source`; None where it is not of the catalog."""
    return next((card for card in CARDS if card.model == source), None)
