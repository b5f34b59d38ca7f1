"""Ranks that load their shards and compute together on MLX's ring, each a process of its own.

PENSIEVE_RANKS=4 runs as many instead of two, and more families.
"""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from pensieve.engine.client.launch import worker_variables
from tests.support import tiny_architectures, tiny_models
from tests.support.ports import free_port

RANKS = int(os.environ.get("PENSIEVE_RANKS", "2"))
ROOT = Path(__file__).parents[3]
TIMEOUT_S = 60
# The first one is quantized to 4 bits in groups of 32.
SIZES: dict[tiny_models.Kind, dict[str, Any]] = {
    "phi3": {"num_attention_heads": 8, "num_key_value_heads": 4, "hidden_size": 128},
    "llama": {"num_attention_heads": 8, "num_key_value_heads": 4},
    "qwen3": {"num_attention_heads": 8, "num_key_value_heads": 4},
}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 256}
LINEAR_HEADS = {"linear_num_key_heads": 4, "linear_num_value_heads": 4}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt_oss": tiny_architectures.FAMILIES["gpt_oss"] | HEADS,
    "qwen2": HEADS,
    # Ranks hold the same KV head.
    "qwen3_5": tiny_architectures.GATED_DELTA_NET
    | HEADS
    | LINEAR_HEADS
    | {"num_key_value_heads": 1},
    "qwen3_moe": HEADS | EXPERTS,
}
if "PENSIEVE_RANKS" not in os.environ:
    FAMILIES = {}
LARGE = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4}


def start_rank(rank: int, addresses: list[str], folders: list[Path]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.mlx.ranks.one_rank"),
            *(str(rank), json.dumps(addresses), json.dumps(FAMILIES), *map(str, folders)),
        ],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | worker_variables("cpu"),
    )


def reports_of(ranks: int, folders: list[Path]) -> list[dict[str, Any]]:
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(ranks)]
    processes = [start_rank(rank, addresses, folders) for rank in range(ranks)]
    try:
        return [json.loads(one.communicate(timeout=TIMEOUT_S)[0]) for one in processes]
    finally:
        for process in processes:
            with process:
                process.kill()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[Any]]:
    """What one rank computes, and each of several."""
    base = tmp_path_factory.mktemp("models")
    folders = [tiny_models.build(kind, base / kind, **sizes) for kind, sizes in SIZES.items()]
    folders.append(tiny_models.build("llama", base / "large", **SIZES["llama"], **LARGE))
    return reports_of(1, folders)[0], reports_of(RANKS, folders)


@pytest.mark.parametrize("name", [*SIZES, "as stored", *FAMILIES])
def test_ranks_together_compute_what_one_computes(
    name: str, reports: tuple[dict[str, Any], list[Any]]
) -> None:
    alone, together = reports[0][name], [report[name] for report in reports[1]]
    assert all(one["logits"] == together[0]["logits"] for one in together)
    assert together[0]["tokens"] == alone["tokens"]
    assert together[0]["logits"] == pytest.approx(alone["logits"], abs=1e-4)
    assert together[0]["is_ragged"]
    assert together[0]["has_batches"]


def test_a_rank_holds_its_part_of_the_weights_alone(
    reports: tuple[dict[str, Any], list[Any]],
) -> None:
    alone, together = reports[0]["large"], [report["large"] for report in reports[1]]
    replicated = alone["held"] * 0.1  # its embeddings and output layer
    for one in together:
        assert one["held"] < replicated + alone["held"] / RANKS * 1.1


def test_a_rank_that_nobody_joins_ends_itself() -> None:
    script = f"""
        from pensieve.engine.planning.hostfile import Rendezvous
        from pensieve.engine.ranks.rendezvous import join
        own, other = "127.0.0.1:{free_port()}", "127.0.0.1:1"
        join(Rendezvous("ring", ((own,), (other,))), 0, timeout_s=1)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    ended = subprocess.run(command, cwd=ROOT, timeout=TIMEOUT_S, check=False)
    assert ended.returncode == -signal.SIGALRM
