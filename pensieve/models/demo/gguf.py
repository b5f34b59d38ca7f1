"""Convert GGUF to an mlx-lm folder: `python -m pensieve.models.demo.gguf model.gguf folder`.

models/demo/wheel.py starts it as a program of its own; it is the only module outside the engine
that loads MLX. Knows the llama architecture with a byte-level BPE tokenizer, as the embedded model
has. Quantized blocks are unchanged: MLX reads Q4_0, Q4_1 and Q8_0 as its own affine quantization in
groups of 32.
"""

# pyright: basic

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pensieve.models.demo.gguf_tokenizer import tokenizer_config, write_tokenizer

if TYPE_CHECKING:
    import mlx.core as mx

GROUP_SIZE = 32

_OUTSIDE_BLOCKS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_INSIDE_BLOCKS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def convert(gguf: Path, folder: Path) -> None:
    """Write config.json, model.safetensors and the tokenizer's files into `folder`. Raises
    ValueError for another architecture.
    """
    import mlx.core as mx

    mx.set_default_device(mx.cpu)
    loaded = mx.load(str(gguf), format="gguf", return_metadata=True)
    arrays, stored = cast("tuple[dict[str, mx.array], dict[str, Any]]", loaded)
    metadata = {key: _plain(value) for key, value in stored.items()}
    if metadata["general.architecture"] != "llama":
        raise ValueError(f"architecture {metadata['general.architecture']!r} is not llama")
    weights = {_renamed(key): unpermuted(key, array, metadata) for key, array in arrays.items()}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    _write_json(folder / "config.json", model_config(metadata, weights))
    _write_json(folder / "tokenizer_config.json", tokenizer_config(metadata))
    write_tokenizer(metadata, folder / "tokenizer.json")


def unpermuted(name: str, array: "mx.array", metadata: dict[str, Any]) -> "mx.array":
    """Undo llama.cpp's order of the query and key rows, which interleaves the halves of each head.

    Rows are the output dimension, so packed weights, scales and biases reorder alike.
    """
    kind = name.split(".")[2] if name.startswith("blk.") else ""
    heads = {"attn_q": "head_count", "attn_k": "head_count_kv"}.get(kind)
    if heads is None:
        return array
    head_count = metadata[f"llama.attention.{heads}"]
    half = array.shape[0] // head_count // 2
    return array.reshape(head_count, half, 2, -1).swapaxes(1, 2).reshape(array.shape)


def model_config(metadata: dict[str, Any], weights: dict[str, "mx.array"]) -> dict[str, Any]:
    """Return mlx-lm's config.json."""
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": metadata["llama.embedding_length"],
        "num_hidden_layers": metadata["llama.block_count"],
        "intermediate_size": metadata["llama.feed_forward_length"],
        "num_attention_heads": metadata["llama.attention.head_count"],
        "num_key_value_heads": metadata["llama.attention.head_count_kv"],
        "rms_norm_eps": metadata["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": metadata["llama.rope.freq_base"],
        "max_position_embeddings": metadata["llama.context_length"],
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "tie_word_embeddings": "lm_head.weight" not in weights,
        "bos_token_id": metadata["tokenizer.ggml.bos_token_id"],
        "eos_token_id": metadata["tokenizer.ggml.eos_token_id"],
        **_quantization(weights),
    }


def _quantization(weights: dict[str, "mx.array"]) -> dict[str, Any]:
    """Return the least bits as the default, and an entry for each module with more."""
    bits = {
        name.removesuffix(".scales"): _bits(weights[name.replace(".scales", ".weight")], scales)
        for name, scales in weights.items()
        if name.endswith(".scales")
    }
    if not bits:
        return {}
    usual = min(bits.values())
    others = {
        name: {"group_size": GROUP_SIZE, "bits": own} for name, own in bits.items() if own != usual
    }
    return {"quantization": {"group_size": GROUP_SIZE, "bits": usual} | others}


def _bits(packed: "mx.array", scales: "mx.array") -> int:
    return packed.shape[-1] * 32 // (scales.shape[-1] * GROUP_SIZE)


def _renamed(name: str) -> str:
    parts = name.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{_INSIDE_BLOCKS[parts[2]]}.{parts[3]}"
    return f"{_OUTSIDE_BLOCKS[parts[0]]}.{parts[1]}"


def _plain(value: Any) -> Any:
    """Convert numbers, which MLX returns as arrays."""
    return value.tolist() if hasattr(value, "tolist") else value


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
