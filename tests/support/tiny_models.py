"""Tiny random models as complete mlx-lm folders, built in a second each.

Architectures, quantization and tokenizers are those of real models. The random weights are the same
at every build on one machine.
"""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from pensieve.models.folder.snapshot import ModelFolder

Kind = Literal["llama", "phi3", "phi3-longrope", "qwen3"]
KINDS: tuple[Kind, ...] = ("llama", "phi3", "phi3-longrope", "qwen3")

PHI3_VOCABULARY = 32064
PHI3_ADDED = [
    "<|endoftext|>",
    "<|assistant|>",
    *(f"<|placeholder{n}|>" for n in range(1, 5)),
    "<|system|>",
    "<|end|>",
    "<|placeholder5|>",
    "<|placeholder6|>",
    "<|user|>",
]
CHATML_ADDED = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
QWEN_MARKS = ["<think>", "</think>", "<tool_call>", "</tool_call>"]

CORPUS = (
    "The quick brown fox jumps over the lazy dog. "
    "Where does the water in the river come from, and where does it go?\n",
    "def add(left: int, right: int) -> int:\n    return left + right\n",
    'Hello, world! It is 1984, and she said: "I do not know what you are talking about."\n',
    "Straße, café, naïve; 東京 и Москва. {'name': 'value', 'list': [1, 2, 3]}\n",
)

PHI3_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def build(kind: Kind, folder: Path, **sizes: Any) -> Path:
    """Fill `folder` with a tiny model of `kind`; `sizes` replace values of its config.

    "phi3" has the rope scaling type "su", which transformers does not know.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer, tokenizer_config = _tokenizer_of(kind)
    config = _config_of(kind, tokenizer) | sizes
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", tokenizer_config)
    _write_json(folder / "config.json", config)
    _write_weights(config, folder)
    return folder


def folder_of(kind: Kind, folder: Path) -> ModelFolder:
    """Build a model and return its `ModelFolder`."""
    return ModelFolder(name=f"tiny-{kind}", repo=f"tests/tiny-{kind}", folder=build(kind, folder))


def phi3_tokenizer() -> Tokenizer:
    """Return a tokenizer like Phi-3's: SentencePiece BPE with byte fallback.

    It adds a space before the first word; control tokens from 32000 on strip the whitespace after
    them.
    """
    pieces, merges = _trained_pieces()
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for token in [*(f"<0x{byte:02X}>" for byte in range(256)), *pieces]:
        vocabulary.setdefault(token, len(vocabulary))
    for number in range(len(vocabulary), 32000):
        vocabulary[f"\U000f0000{number}"] = number  # no merge results in it
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    for text in ["<unk>", "<s>", "</s>", *PHI3_ADDED]:
        strips_right = text not in {"<unk>", "<s>", "<|endoftext|>"}
        is_special = text != "</s>"
        tokenizer.add_tokens(
            [AddedToken(text, special=is_special, normalized=False, rstrip=strips_right)]
        )
    return tokenizer


def byte_level_tokenizer(
    *, is_qwen: bool, corpus: Iterable[str] = CORPUS, size: int = 500
) -> Tokenizer:
    """Return a tokenizer like Llama 3's or Qwen's: byte-level BPE, ChatML control tokens."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(
        Regex(r"\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"), "isolated"
    )
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    if is_qwen:
        tokenizer.normalizer = normalizers.NFC()
    special = [AddedToken(text, special=True, normalized=False) for text in CHATML_ADDED]
    marks = [AddedToken(text, special=False, normalized=False) for text in QWEN_MARKS]
    tokenizer.add_tokens(special + (marks if is_qwen else []))
    return tokenizer


@cache
def _trained_pieces() -> tuple[list[str], list[tuple[str, str]]]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    tokenizer.train_from_iterator(
        [line.replace("\n", " ") for line in CORPUS],
        trainers.BpeTrainer(vocab_size=400, show_progress=False),
    )
    stored = json.loads(tokenizer.to_str())["model"]
    ordered = sorted(stored["vocab"], key=stored["vocab"].__getitem__)
    return ordered, [tuple(pair) for pair in stored["merges"]]


def _tokenizer_of(kind: Kind) -> tuple[Tokenizer, dict[str, Any]]:
    common = {"clean_up_tokenization_spaces": False, "tokenizer_class": "PreTrainedTokenizerFast"}
    match kind:
        case "phi3" | "phi3-longrope":
            names = {"bos_token": "<s>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
            own = {"chat_template": PHI3_TEMPLATE, "model_max_length": 131072}
            return phi3_tokenizer(), common | names | own
        case "llama" | "qwen3":
            names = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
            own = {"chat_template": CHATML_TEMPLATE, "model_max_length": 8192}
            return byte_level_tokenizer(is_qwen=kind == "qwen3"), common | names | own


def _config_of(kind: Kind, tokenizer: Tokenizer) -> dict[str, Any]:
    heads = {"num_attention_heads": 4, "num_hidden_layers": 2, "rms_norm_eps": 1e-5}
    shape = {"hidden_size": 64, "intermediate_size": 128, **heads}
    end = tokenizer.token_to_id("<|im_end|>")
    match kind:
        case "phi3" | "phi3-longrope":
            return shape | _phi3_config("su" if kind == "phi3" else "longrope")
        case "llama":
            own = {
                "model_type": "llama",
                "architectures": ["LlamaForCausalLM"],
                "eos_token_id": end,
            }
            sizes = {"num_key_value_heads": 2, "max_position_embeddings": 8192}
        case "qwen3":
            own = {
                "model_type": "qwen3",
                "architectures": ["Qwen3ForCausalLM"],
                "eos_token_id": end,
            }
            sizes = {"num_key_value_heads": 2, "max_position_embeddings": 8192, "head_dim": 16}
    rest = {"vocab_size": tokenizer.get_vocab_size(), "rope_theta": 10000.0}
    return shape | own | sizes | rest | {"tie_word_embeddings": False}


def _phi3_config(rope_type: str) -> dict[str, Any]:
    """Return a small version of Microsoft's config: with auto_map, "su" and one stop token."""
    pairs = 8
    return {
        "model_type": "phi3",
        "architectures": ["Phi3ForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_phi3.Phi3Config",
            "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM",
        },
        "num_key_value_heads": 4,
        "bos_token_id": 1,
        "eos_token_id": 32000,
        "pad_token_id": 32000,
        "max_position_embeddings": 131072,
        "original_max_position_embeddings": 4096,
        "rope_theta": 10000.0,
        "rope_scaling": {
            "type": rope_type,
            "long_factor": [1.0 + 0.5 * n for n in range(pairs)],
            "short_factor": [1.0 + 0.05 * n for n in range(pairs)],
        },
        "sliding_window": 262144,
        "tie_word_embeddings": False,
        "vocab_size": PHI3_VOCABULARY,
        "quantization": {"group_size": 32, "bits": 4},
    }


def _write_weights(config: Mapping[str, Any], folder: Path) -> None:
    """Write the random initial weights of mlx-lm's classes."""
    from importlib import import_module

    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_flatten, tree_map

    architecture = import_module(f"mlx_lm.models.{config['model_type']}")
    mx.random.seed(7)
    model = architecture.Model(architecture.ModelArgs.from_dict(dict(config)))
    # Larger than MLX's initial weights, so that generated tokens vary.
    model.update(
        tree_map(lambda weights: weights * 3 if weights.ndim > 1 else weights, model.parameters())
    )
    if quantization := config.get("quantization"):
        nn.quantize(model, quantization["group_size"], quantization["bits"])
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
