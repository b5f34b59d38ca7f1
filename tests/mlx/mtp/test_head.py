"""Tests what an MTP head computes, and where its weights are found."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx import nn
from mlx.utils import tree_flatten

from pensieve.engine.generation import Generation, Token
from pensieve.engine.model.cache_maker import CacheMaker
from pensieve.engine.model.loading import load_weights
from pensieve.engine.model.memory import measure_model
from pensieve.engine.model.mtp.head import CONTEXT_PAIRS, HeadLayers, MtpHead, load_head
from pensieve.engine.planning.memory_plan import WINDOW_SPARE_TOKENS
from pensieve.engine.protocol import Load
from pensieve.engine.speculation.cost_curve import ContextCosts, CostCurve
from pensieve.engine.worker.build import build_engine
from pensieve.engine.worker.drafting import speculation_of
from pensieve.engine.worker.step_times import head_seconds
from tests.support import tiny_architectures, tiny_models
from tests.support.device import DEVICE

PAIRS = 12
Weights = Mapping[str, mx.array]
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "shared_expert_intermediate_size": 64,
    "moe_intermediate_size": 64,
}


@pytest.fixture(scope="module", params=["qwen3_5", "qwen3_5_moe"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"model_type": request.param, **tiny_architectures.GATED_DELTA_NET}
    if request.param == "qwen3_5_moe":
        sizes |= EXPERTS
    path = tmp_path_factory.mktemp("models") / "acme--Tiny-9B-4bit"
    return tiny_models.build("qwen3", path, **sizes)


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return load_weights(folder, DEVICE)


@pytest.fixture(scope="module")
def weights(model: Any) -> Weights:
    """Weights of a head, as converted to MLX."""
    mx.random.seed(9)
    layers = HeadLayers(model)
    flat = dict(tree_flatten(layers.parameters()))
    noisy = {name: 1 + 0.3 * mx.random.normal(one.shape) for name, one in flat.items()}
    return {name: noisy[name] if one.ndim == 1 else 3 * one for name, one in flat.items()}


def raw_of(weights: Weights) -> Weights:
    """Return the weights as Qwen publishes them."""
    raw = {f"mtp.{name}": one - 1 if one.ndim == 1 else one for name, one in weights.items()}
    experts = "mtp.layers.0.mlp.switch_mlp."
    if f"{experts}gate_proj.weight" in raw:
        gate, up = (raw.pop(f"{experts}{name}_proj.weight") for name in ("gate", "up"))
        raw["mtp.layers.0.mlp.experts.gate_up_proj"] = mx.concatenate([gate, up], axis=-2)
        raw["mtp.layers.0.mlp.experts.down_proj"] = raw.pop(f"{experts}down_proj.weight")
    return raw


def quantized(weights: Weights) -> Weights:
    stored: dict[str, mx.array] = {}
    for name, one in weights.items():
        path, _, kind = name.rpartition(".")
        if kind == "weight" and one.ndim > 1 and "gate.weight" not in name:
            parts = ("weight", "scales", "biases")
            stored |= {
                f"{path}.{part}": array
                for part, array in zip(parts, mx.quantize(one, 32, 8), strict=True)
            }
        else:
            stored[name] = one
    return stored


def own(model_folder: Path, tensors: Weights) -> None:
    mx.save_safetensors(str(model_folder / "model-mtp.safetensors"), dict(tensors))


def separate(model_folder: Path, tensors: Weights, **config: Any) -> None:
    head = model_folder.with_name("acme--Tiny-9B-MTP-8bit")
    head.mkdir()
    (head / "config.json").write_text(json.dumps({"model_type": "qwen3_5_mtp", **config}))
    mx.save_safetensors(str(head / "model.safetensors"), dict(tensors))


PLACES: dict[str, Callable[[Path, Weights], None]] = {
    "raw in the model's files": lambda at, weights: own(at, raw_of(weights)),
    "converted in the model's files": lambda at, weights: own(
        at, {f"language_model.mtp.{name}": one for name, one in weights.items()}
    ),
    "next to it": separate,
    "raw next to it": lambda at, weights: separate(at, raw_of(weights)),
    "quantized next to it": lambda at, weights: separate(
        at, quantized(weights), quantization={"group_size": 32, "bits": 8}
    ),
}


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / folder.name))


def pairs_of(model: Any) -> tuple[mx.array, mx.array]:
    """Return hidden states and the tokens that follow."""
    tokens = mx.array([[(7 * at * at + at) % 199 for at in range(PAIRS + 1)]])
    return model.language_model.model(tokens[:, :-1]), tokens[:, 1:]


def expected_logits(model: Any, weights: Weights) -> mx.array:
    """Return the logits after each pair, by the formula."""

    def normed(x: mx.array, name: str) -> mx.array:
        return mx.fast.rms_norm(x, weights[f"{name}.weight"], args.rms_norm_eps)

    args = model.language_model.args
    hidden, tokens = pairs_of(model)
    embedded = model.language_model.model.embed_tokens(tokens)
    parts = [normed(embedded, "pre_fc_norm_embedding"), normed(hidden, "pre_fc_norm_hidden")]
    layers = HeadLayers(model)
    layers.load_weights(list(weights.items()))
    x = mx.concatenate(parts, axis=-1) @ weights["fc.weight"].T
    after = normed(layers.layers[0](x, mask="causal"), "norm")
    if "lm_head" in model.language_model:
        return model.language_model.lm_head(after)[0]
    return model.language_model.model.embed_tokens.as_linear(after)[0]


def drafts(head: MtpHead, model: Any, splits: list[int]) -> list[int]:
    """Return the drafts after pairs that come in parts of these sizes."""
    hidden, tokens = pairs_of(model)
    cache, drafted, at = head.make_cache(), [], 0
    for size in splits:
        part = slice(at, at + size)
        drafted += head.draft(hidden[:, part], tokens[:, part], cache).tolist()
        at += size
    return drafted


@pytest.mark.parametrize("place", PLACES)
def test_head_is_found_and_drafts_what_the_formula_says(
    copied: Path, model: Any, weights: Weights, place: str
) -> None:
    PLACES[place](copied, weights)
    loaded = load_weights(copied, DEVICE)
    head = load_head(loaded, copied, DEVICE)
    assert head is not None
    logits = expected_logits(model, weights)
    expected = mx.argmax(logits, axis=-1).tolist()
    gaps = [row[-1] - row[-2] for row in mx.sort(logits, axis=-1).tolist()]
    clear = [gap > 0.05 * max(gaps) for gap in gaps]
    assert sum(clear) > PAIRS // 2
    assert len(set(expected)) > PAIRS // 3
    tolerant = "quantized" in place
    for splits in ([1] * PAIRS, [5, 1, 2, 1, 3]):
        ends = [sum(splits[: at + 1]) - 1 for at in range(len(splits))]
        for end, token in zip(ends, drafts(head, loaded, splits), strict=True):
            assert token == expected[end] or (tolerant and not clear[end])


def test_model_answers_the_same_whether_its_files_have_a_head_or_not(
    copied: Path, model: Any, weights: Weights
) -> None:
    own(copied, raw_of(weights))
    tokens = mx.array([[5, 6, 7]])
    assert mx.array_equal(load_weights(copied, DEVICE)(tokens), model(tokens)).item()


def test_head_of_another_model_is_not_used_and_said_once(
    copied: Path, model: Any, weights: Weights, caplog: pytest.LogCaptureFixture
) -> None:
    other = {**weights, "fc.weight": weights["fc.weight"][:, :-32]}
    separate(copied, other)
    assert load_head(model, copied, DEVICE) is None
    (record,) = caplog.records
    assert "MTP head" in record.message


@pytest.mark.parametrize("missing", ["norm.weight", "layers.0.self_attn.q_proj.weight"])
def test_incomplete_head_is_not_used(
    copied: Path, model: Any, weights: Weights, missing: str
) -> None:
    separate(copied, {name: one for name, one in weights.items() if name != missing})
    assert load_head(model, copied, DEVICE) is None


def test_model_without_a_head_or_of_another_family_has_none(copied: Path, model: Any) -> None:
    assert load_head(model, copied, DEVICE) is None
    llama = tiny_architectures.build("llama")
    (copied / "config.json").write_text('{"model_type": "llama"}')
    assert load_head(llama, copied, DEVICE) is None


def test_head_sees_a_window_of_pairs(model: Any, weights: Weights) -> None:
    layers = HeadLayers(model)
    layers.load_weights(list(weights.items()))
    head = MtpHead.of(layers, model)
    cache = head.make_cache()
    hidden = mx.zeros((1, CONTEXT_PAIRS + 900, head.hidden_size))
    for start in range(0, hidden.shape[1], 100):
        part = hidden[:, start : start + 100]
        head.draft(part, mx.zeros(part.shape[:2], mx.uint32), cache).tolist()
    (window,) = cache.sequences
    assert window.offset == hidden.shape[1]
    assert window.start > 0
    assert window.state[0].shape[2] <= CONTEXT_PAIRS + WINDOW_SPARE_TOKENS


def test_head_that_takes_too_long_is_not_used(model: Any, weights: Weights) -> None:
    layers = HeadLayers(model)
    layers.load_weights(list(weights.items()))
    head = MtpHead.of(layers, model)
    ticks = iter(range(100))
    assert head_seconds(head, lambda: float(next(ticks))) == 1.0
    curve = CostCurve((ContextCosts(256, {1: 1.0, 2: 1.2, 4: 1.5}),))
    state, speculation = speculation_of(curve, 100, head, 0.2)
    assert state.has_head
    assert speculation is not None
    assert speculation.head is head
    state, speculation = speculation_of(curve, 100, head, 0.5)
    assert not state.has_head
    assert speculation is not None
    assert speculation.head is None


@pytest.mark.parametrize("is_on", [False, True])
def test_worker_counts_the_head_in_its_memory_and_answers(
    copied: Path, model: Any, weights: Weights, is_on: bool
) -> None:
    separate(copied, weights)
    context = build_engine(Load(str(copied), DEVICE, has_speculation=is_on))
    facts, _ = measure_model(CacheMaker(model, is_ragged=True), vars(model.args))
    head_bytes = sum(one.nbytes for one in weights.values())
    assert context.read_stats().weights_bytes == facts.weights_bytes + is_on * head_bytes
    context.scheduler.submit(1, Generation((1, 2, 3), 30))
    events = []
    while not context.scheduler.is_idle:
        events += context.scheduler.step()
    assert sum(isinstance(event, Token) for _, event in events) == 30
    for close in (context.scheduler.close, context.grammar_queue.close, context.close):
        close()


def test_weights_are_layers_of_the_head_alone(model: Any) -> None:
    assert isinstance(HeadLayers(model), nn.Module)
    before = len(dict(tree_flatten(model.parameters())))
    MtpHead.of(HeadLayers(model), model)
    assert len(dict(tree_flatten(model.parameters()))) == before
