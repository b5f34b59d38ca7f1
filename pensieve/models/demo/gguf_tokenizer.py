"""Write the tokenizer in a GGUF's metadata as tokenizer.json and tokenizer_config.json.

Knows byte-level BPE with SmolLM2's pre-tokenizer. Compared with llama.cpp on 34 difficult strings
(2026-11-22).
"""

# pyright: basic

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

# llama.cpp's llama_token_type
CONTROL, USER_DEFINED = 3, 4


def write_tokenizer(metadata: dict[str, Any], file: Path) -> None:
    """Write tokenizer.json. Raises ValueError for a pre-tokenizer other than SmolLM2's."""
    if (pre_tokenizer := metadata["tokenizer.ggml.pre"]) != "smollm":
        raise ValueError(f"pre-tokenizer {pre_tokenizer!r} is not smollm")
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    kinds: list[int] = metadata["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(
        models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=merges)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    for token, kind in zip(tokens, kinds, strict=True):
        if kind in {CONTROL, USER_DEFINED}:
            tokenizer.add_tokens([AddedToken(token, special=kind == CONTROL, normalized=False)])
    tokenizer.save(str(file))


def tokenizer_config(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return tokenizer_config.json: the special tokens by role, and the chat template."""
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    roles = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    special = {
        f"{role}_token": tokens[metadata[key]]
        for role, name in roles.items()
        if (key := f"tokenizer.ggml.{name}_token_id") in metadata
    }
    return special | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": metadata["llama.context_length"],
        "chat_template": metadata["tokenizer.chat_template"],
    }
