# pyright: basic
"""The MTP head of a Qwen3.5 model: one layer that predicts the token after the next.

mlx-lm leaves it out. It computes from the model's hidden state after a token and from the token
that follows, with the model's own embedding and output layer. Its weights are `mtp.*` tensors of
the model's files, or a folder next to the model's (engine/planning/mtp_files.py).
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx  # noqa: TID253
from mlx import nn  # noqa: TID253
from mlx.utils import tree_flatten  # noqa: TID253
from mlx_lm.models.base import create_attention_mask  # noqa: TID253

from pensieve.engine.long_operations import Announce, announce_nothing
from pensieve.engine.model.kv.window import WindowKVCache
from pensieve.engine.model.loading import fit_to_device, read_weights
from pensieve.engine.planning.mtp_files import (
    HEAD_PREFIX,
    config_of,
    has_heads,
    head_folder_of,
    head_tensor,
)
from pensieve.settings.resolve import Device

_log = logging.getLogger("pensieve.engine")

# Pairs that the head's attention sees. Together with the hidden states that wait for a draft, they
# take 15 MB of the memory planned for activations (Qwen3.8-27B).
CONTEXT_PAIRS = 1024
# The one layer's names in the model's own scheme, which `sanitize` expects.
_AS_LAYER = "language_model.model.layers.0."
_OWN_LAYER = "layers.0."


class HeadLayers(nn.Module):
    """The head's weights, by their published names."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        args = model.language_model.args
        size, eps = args.hidden_size, args.rms_norm_eps
        self.pre_fc_norm_embedding = nn.RMSNorm(size, eps=eps)
        self.pre_fc_norm_hidden = nn.RMSNorm(size, eps=eps)
        self.fc = nn.Linear(2 * size, size, bias=False)
        # Its only layer has full attention.
        own_args = replace(args, num_hidden_layers=1, full_attention_interval=1)
        self.layers = [type(model.layers[0])(own_args, 0)]
        self.norm = nn.RMSNorm(size, eps=eps)

    def __call__(self, embedded: mx.array, hidden: mx.array, cache: Any) -> mx.array:
        parts = [self.pre_fc_norm_embedding(embedded), self.pre_fc_norm_hidden(hidden)]
        joined = self.fc(mx.concatenate(parts, axis=-1))
        mask = create_attention_mask(joined, cache)
        return self.norm(self.layers[0](joined, mask, cache))


@dataclass(frozen=True, slots=True)
class MtpHead:
    """Implements `DraftHead`."""

    layers: Callable[[mx.array, mx.array, Any], mx.array]
    embed: Callable[[mx.array], mx.array]
    project: Callable[[mx.array], mx.array]  # to logits
    hidden_size: int
    dtype: mx.Dtype  # of hidden states
    nbytes: int  # of what the model does not have

    @classmethod
    def of(cls, layers: HeadLayers, model: Any) -> "MtpHead":
        text = model.language_model
        embedding = text.model.embed_tokens
        project = text.lm_head if "lm_head" in text else embedding.as_linear
        flat: Any = tree_flatten(layers.parameters())
        nbytes = sum(array.nbytes for _, array in flat)
        norm = layers.norm.weight
        return cls(layers, embedding, project, norm.size, norm.dtype, nbytes)

    def make_cache(self) -> Any:
        return WindowKVCache.merge([WindowKVCache(CONTEXT_PAIRS)])

    def draft(self, hidden: mx.array, tokens: mx.array, cache: Any) -> mx.array:
        after = self.layers(self.embed(tokens), hidden, cache)
        return mx.argmax(self.project(after[:, -1]), axis=-1)


@dataclass(frozen=True, slots=True)
class _Stored:
    """A head as its files have it."""

    weights: Mapping[str, mx.array]  # by their names in `HeadLayers`
    prefix: str  # of these names in the files
    quantization: Mapping[str, Any]

    @property
    def is_raw(self) -> bool:
        """Whether it is as Qwen publishes it: norms are differences from 1.

        Conversions to MLX add the 1 and move the names.
        """
        return self.prefix == HEAD_PREFIX


def load_head(
    model: Any, folder: Path, device: Device, announce: Announce = announce_nothing
) -> MtpHead | None:
    """Return the head of the model loaded from `folder`; None if there is none that fits it."""
    if not has_heads(config_of(folder)):
        return None
    try:
        stored = _stored(folder)
        layers = _layers(stored, model, device, announce) if stored else None
        return MtpHead.of(layers, model) if layers else None
    except Exception as error:  # noqa: BLE001 - MLX may raise anything; answers need no head
        _log.warning("loading the MTP head failed, it has no drafts: %s", error)
        return None


def _stored(folder: Path) -> _Stored | None:
    tensors = {
        name: (tensor, array)
        for name, array in _tensors(folder).items()
        if (tensor := head_tensor(name))
    }
    if not tensors and (own_folder := head_folder_of(folder)):
        folder = own_folder
        tensors = {
            name: (head_tensor(name) or name, array) for name, array in _tensors(folder).items()
        }
    if not tensors:
        return None
    name, (tensor, _) = next(iter(tensors.items()))
    quantization = config_of(folder).get("quantization") or {}
    return _Stored(dict(tensors.values()), name.removesuffix(tensor), quantization)


def _tensors(folder: Path) -> dict[str, mx.array]:
    """Return all tensors of a folder; nothing is read yet but their names."""
    arrays: dict[str, mx.array] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        arrays |= mx.load(str(file))  # type: ignore[operator, arg-type]
    return arrays


def _layers(stored: _Stored, model: Any, device: Device, announce: Announce) -> HeadLayers:
    """Raises ValueError for weights that are not those of a head of this model."""
    weights = _as_converted(stored, model)
    layers = HeadLayers(model)
    _quantize(layers, weights, stored)
    layers.load_weights(list(weights.items()))
    layers = fit_to_device(layers, device)
    read_weights(layers, announce)
    return layers


def _as_converted(stored: _Stored, model: Any) -> dict[str, mx.array]:
    """Return the weights as mlx-lm's layers have them, by their names in `HeadLayers`."""
    weights = {
        name: array + 1.0 if stored.is_raw and "norm" in name else array
        for name, array in stored.weights.items()
    }
    layer = {
        _AS_LAYER + name.removeprefix(_OWN_LAYER): weights.pop(name)
        for name in list(weights)
        if name.startswith(_OWN_LAYER)
    }
    # Experts are stored in other shapes than mlx-lm's.
    converted = model.sanitize(layer)
    return weights | {
        _OWN_LAYER + name.removeprefix(_AS_LAYER): array for name, array in converted.items()
    }


def _quantize(layers: HeadLayers, weights: Mapping[str, mx.array], stored: _Stored) -> None:
    """Quantize those layers that have scales, as their config says."""
    general = stored.quantization

    def choice(path: str, _: Any) -> Any:
        if f"{path}.scales" not in weights:
            return False
        return general.get(stored.prefix + path, True)

    if any(name.endswith(".scales") for name in weights):
        mode = general.get("mode", "affine")
        nn.quantize(
            layers, general["group_size"], general["bits"], mode=mode, class_predicate=choice
        )
