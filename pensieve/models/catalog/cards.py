"""Facts about the catalog's models, known before they are fetched: size, licence, quality, shape.

Memory is planned by the shape. All values are published ones, from the sources that each card names
(read 2026-11-26 and -30), and not measured: only smollm2-135m has been run by pensieve's makers
with its real weights. The engine measures again at load. Sizes are those of the Hub's files,
including vision towers. Query heads, states and unloaded bytes (published size minus the text
model) follow the architecture as mlx-lm 0.32.2 builds it from its config, computed without weights
(tests/mlx/test_shapes.py).
"""

from dataclasses import dataclass

from pensieve.models.catalog.sources import (
    GPT_OSS_20B,
    GPT_OSS_120B,
    MUSE_GLIMMER_30B,
    PHI_3_MINI,
    QWEN3_4B,
    QWEN3_CODER_30B,
    QWEN3_CODER_NEXT,
    QWEN35_4B,
    QWEN35_9B,
    QWEN36_27B,
    QWEN36_35B,
    QWEN38_27B,
    QWEN38_27B_8BIT,
    SMOLLM2_135M,
    EmbeddedModel,
    HubModel,
    ModelSource,
)
from pensieve.models.folder.config_shape import PHI_3_MINI_SHAPE, ModelShape

UNTRIED = "not tried with its real weights by pensieve's makers"
EXO = (
    "exo-explore/exo: resources/inference_model_cards/mlx-community--{}.toml"
    " (size, layers, KV heads, context)"
)
QWEN35_LAYERS = (
    "Qwen3.5 configs (head_dim 256, full_attention_interval 4); mlx_lm/models/qwen3_5.py"
)
QWEN27_LAYERS = (
    "THUDM/slime: scripts/models/qwen3.5-27B.sh (64 layers; 24 heads, 4 KV heads of 256),"
    " every fourth attends; mlx_lm/models/qwen3_5.py"
)
RAPID_SIZES = "Rapid-MLX: model_sizes.json (bytes on the Hub, October 2026)"
GPT_OSS_LAYERS = "config.json of openai/{} (head_dim 64, every other layer sees 128 tokens)"
# A dense 27B in 4 bits generates 17 tokens/s at 400 GB/s (M1 Max) and 11.6 at 200 (M2 Pro; both
# reported in 2026); below this bandwidth it is too slow for an agent. In 8 bits it reads 1.84 times
# as much.
DENSE_27B_GB_S = 300
DENSE_27B_8BIT_GB_S = 550


@dataclass(frozen=True, slots=True)
class Quality:
    """Benchmark results of a model as an agent."""

    agent_rank: int | None  # among the 313 of RANKS; None: not ranked there
    others: str = ""  # further results; "maker": published by the model's maker

    def __str__(self) -> str:
        rank = f"rank {self.agent_rank} of 313 as an agent ({RANKS})" if self.agent_rank else ""
        return "; ".join(filter(None, (rank, self.others)))


RANKS = "whatmodel.sh, October 2026"


@dataclass(frozen=True, slots=True)
class ModelCard:
    model: HubModel | EmbeddedModel
    summary: str  # what it is good for, in one line
    licence: str
    quantization: str
    shape: ModelShape
    active_billions: float  # weights that are read per token
    sources: tuple[str, ...]  # of the numbers
    quality: Quality | None = None
    min_bandwidth_gb_s: int = 0  # below it, the model is too slow to work with
    tried: str = UNTRIED  # how far pensieve's makers ran it


CARDS: tuple[ModelCard, ...] = (
    ModelCard(
        PHI_3_MINI,
        "the default: small, for text and code; a costly KV cache",
        "MIT",
        "4 bits in groups of 64",
        PHI_3_MINI_SHAPE,
        3.8,
        ("config.json of microsoft/Phi-3-mini-128k-instruct",),
        tried="its architecture and tokenizer were run with random weights only",
    ),
    ModelCard(
        SMOLLM2_135M,
        "tiny, needs no Hub: to see that everything works",
        "Apache-2.0",
        "4 bits in groups of 32 (GGUF Q4_1)",
        ModelShape(98_000_000, 8192, layers=30, kv_heads=3, head_dim=64, bits=4, query_heads=9),
        0.135,
        ("its GGUF's own metadata",),
        tried="run with its real weights on Linux",
    ),
    ModelCard(
        QWEN3_4B,
        "follows instructions, uses tools; for 8 GB",
        "Apache-2.0",
        "4 bits in groups of 64",
        ModelShape(
            2_263_000_000, 262_144, layers=36, kv_heads=8, head_dim=128, bits=4, query_heads=32
        ),
        4,
        (
            "model card of Qwen/Qwen3-4B-Instruct-2507 (layers, KV heads, context, licence)",
            EXO.format("Qwen3-4B-4bit") + "; the size is of that older model of the same shape",
        ),
    ),
    ModelCard(
        QWEN35_4B,
        "thinks, uses tools, long context for little memory; for 8 GB",
        "Apache-2.0",
        "4 bits in groups of 64",
        ModelShape(
            3_060_000_000,
            262_144,
            layers=8,
            kv_heads=4,
            head_dim=256,
            bits=4,
            query_heads=16,
            state_bytes=51_511_296,
            unloaded_bytes=692_880_000,
        ),
        4,
        ("file list of mlx-community/Qwen3.5-4B-MLX-4bit (3.06 GB)", QWEN35_LAYERS),
        Quality(170, "BFCL-V4 56.8"),
    ),
    ModelCard(
        QWEN35_9B,
        "thinks, uses tools, long context for little memory; for 16 GB",
        "Apache-2.0",
        "4 bits in groups of 64",
        ModelShape(
            5_950_062_560,
            262_144,
            layers=8,
            kv_heads=4,
            head_dim=256,
            bits=4,
            query_heads=16,
            state_bytes=51_511_296,
            unloaded_bytes=912_022_496,
        ),
        9,
        (EXO.format("Qwen3.5-9B-4bit"), QWEN35_LAYERS),
        Quality(154, "BFCL-V4 60.6, SWE-bench Pro 38.0"),
    ),
    ModelCard(
        GPT_OSS_20B,
        "thinks, uses tools, quick (3.6 of 21 billion weights a token); for 24 GB",
        "Apache-2.0",
        "MXFP4, the rest 8 bits",
        ModelShape(
            12_025_908_224,
            131_072,
            layers=12,
            kv_heads=8,
            head_dim=64,
            bits=4,
            query_heads=64,
            state_bytes=3_145_728,
            window_token_bytes=24_576,
            is_quantizable=False,
        ),
        3.6,
        (
            EXO.format("gpt-oss-20b-MXFP4-Q8"),
            GPT_OSS_LAYERS.format("gpt-oss-20b"),
            "ml-explore/mlx-lm issue 644: does not fit into 16 GB",
        ),
        Quality(215, "SWE-bench Verified 60.7 (maker)"),
    ),
    ModelCard(
        QWEN38_27B,
        "the best agent that fits into 32 GB; thinks, uses tools; wants a Max chip",
        "Apache-2.0",
        "4 bits in groups of 64",
        ModelShape(
            16_054_000_000,
            262_144,
            layers=16,
            kv_heads=4,
            head_dim=256,
            bits=4,
            query_heads=24,
            state_bytes=153_944_064,
            unloaded_bytes=921_197_952,
        ),
        27,
        (RAPID_SIZES, QWEN27_LAYERS),
        Quality(52, "Terminal-Bench 2.1 73.0 (maker), SWE-bench Pro 61.7"),
        DENSE_27B_GB_S,
    ),
    ModelCard(
        QWEN36_27B,
        "thinks, uses tools; qwen3.8-27b of the same size is better",
        "Apache-2.0",
        "4 bits in groups of 64",
        ModelShape(
            16_080_000_000,
            262_144,
            layers=16,
            kv_heads=4,
            head_dim=256,
            bits=4,
            query_heads=24,
            state_bytes=153_944_064,
            unloaded_bytes=947_197_952,
        ),
        27,
        (RAPID_SIZES, QWEN27_LAYERS),
        Quality(81, "SWE-bench Verified 77.2 (maker), SWE-bench Pro 53.5"),
        DENSE_27B_GB_S,
    ),
    ModelCard(
        QWEN3_CODER_30B,
        "quick (3.3 of 30.5 billion weights a token); an older, weaker agent",
        "Apache-2.0",
        "4 bits in groups of 64",
        ModelShape(
            17_180_000_000, 262_144, layers=48, kv_heads=4, head_dim=128, bits=4, query_heads=32
        ),
        3.3,
        ("model card of Qwen/Qwen3-Coder-30B-A3B-Instruct (layers, KV heads, context, licence)",),
        Quality(182, "SWE-bench Verified 31.8, Terminal-Bench 2.1 10.1"),
    ),
    ModelCard(
        MUSE_GLIMMER_30B,
        "by Meta; thinks, uses tools, slower than qwen3.8-27b; wants a Max chip",
        "Apache-2.0",
        "4 bits in groups of 64",
        # Its other 39 layers cache 2048 tokens each. Its text layers in 4 bits would be 15.7 GB
        # (mlx-lm 0.32.2); the use of the other bytes is unknown, so all count as loaded.
        ModelShape(
            19_440_000_000,
            131_072,
            layers=13,
            kv_heads=2,
            head_dim=128,
            bits=4,
            query_heads=32,
            state_bytes=81_788_928,
            window_token_bytes=39_936,
        ),
        30,
        (
            RAPID_SIZES,
            "mlx_lm/models/muse_glimmer.py (52 layers, every fourth attends to all; heads,"
            " context)",
        ),
        Quality(80, "SWE-bench Verified 76.0 (maker); 24 of 30 tool tasks, qwen3.8-27b 30"),
        DENSE_27B_GB_S,
    ),
    ModelCard(
        QWEN36_35B,
        "thinks, uses tools, the best of the quick (3 of 35 billion weights a token)",
        "Apache-2.0",
        "4 bits in groups of 64",
        ModelShape(
            20_401_929_952,
            262_144,
            layers=10,
            kv_heads=2,
            head_dim=256,
            bits=4,
            query_heads=16,
            state_bytes=64_389_120,
            unloaded_bytes=893_142_496,
        ),
        3,
        (EXO.format("Qwen3.6-35B-A3B-4bit"), QWEN35_LAYERS),
        Quality(95, "SWE-bench Verified 64.4 (maker: 73.4), Terminal-Bench 2.1 34.8"),
    ),
    ModelCard(
        QWEN38_27B_8BIT,
        "qwen3.8-27b with finer weights, at half the speed; for 64 GB and an Ultra",
        "Apache-2.0",
        "8 bits in groups of 64",
        ModelShape(
            29_500_000_000,
            262_144,
            layers=16,
            kv_heads=4,
            head_dim=256,
            bits=8,
            query_heads=24,
            state_bytes=153_944_064,
            unloaded_bytes=920_521_472,
        ),
        27,
        ("size of the pinned commit as others recorded it (29.5 GB, October 2026)", QWEN27_LAYERS),
        Quality(52, "Terminal-Bench 2.1 73.0 (maker), SWE-bench Pro 61.7"),
        DENSE_27B_8BIT_GB_S,
    ),
    ModelCard(
        QWEN3_CODER_NEXT,
        "made for coding, quick (3 of 80 billion weights a token); for 96 GB",
        "Apache-2.0",
        "4 bits in groups of 64",
        ModelShape(
            44_856_000_000,
            262_144,
            layers=12,
            kv_heads=2,
            head_dim=256,
            bits=4,
            query_heads=16,
            state_bytes=77_266_944,
        ),
        3,
        (
            RAPID_SIZES,
            "config.json of the Qwen3-Coder-Next family (head_dim 256, full_attention_interval 4)",
        ),
        Quality(None, "SWE-bench Verified 70.6 (maker), Terminal-Bench 2.0 36.2 (maker)"),
    ),
    ModelCard(
        GPT_OSS_120B,
        "thinks, uses tools, quick (5.1 of 117 billion weights a token); for 96 GB",
        "Apache-2.0",
        "MXFP4, the rest 4 bits",
        ModelShape(
            62_360_000_000,
            131_072,
            layers=18,
            kv_heads=8,
            head_dim=64,
            bits=4,
            query_heads=64,
            state_bytes=4_718_592,
            window_token_bytes=36_864,
            is_quantizable=False,
        ),
        5.1,
        (RAPID_SIZES, GPT_OSS_LAYERS.format("gpt-oss-120b")),
        Quality(159, "SWE-bench Verified 31.0"),
    ),
)


def card_of(source: ModelSource) -> ModelCard | None:
    """Return the card of `source`; None if it is not in the catalog."""
    return next((card for card in CARDS if card.model == source), None)
