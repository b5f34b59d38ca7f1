"""Train a tiny model that sees: it names the colours of the left and the right half of a picture.

A whole model folder of the Qwen3.5 family: two layers of text, a tower of two, half a minute of two
cores. It answers about the last picture of a conversation, whatever was asked before.
"""

import hashlib
import json
import math
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tokenizers import AddedToken, Tokenizer

from pensieve.engine.pictures import PromptPicture
from pensieve.engine.planning.tower_files import tower_shape_of
from tests.clients.installed import cached_folder
from tests.support.tiny_models import CHATML_ADDED, CHATML_TEMPLATE, byte_level_tokenizer
from tests.support.trained_model import train_apart

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 190, 60),
    "blue": (40, 70, 220),
    "white": (235, 235, 235),
}
QUESTION = "What do you see?"
SEEN_TOKENS = ["<|vision_start|>", "<|image_pad|>", "<|vision_end|>"]
UNIT = 32
# In tokens; the last one is never trained on.
GRIDS = ((1, 2), (2, 2), (2, 4), (3, 2), (2, 3))
WIDTH = 64
STEPS = 240
MAX_CYCLES = 2
SEEDS = (2, 3, 1)
BATCH = 8
RATE = 3e-3
TRIALS, MOST_WRONG = 20, 2  # of batches, of examples
NOISE = 25
CONTEXT_TOKENS = 8192
TEXTS = (
    QUESTION,
    "Hello!",
    "Please remember the number 7.",
    "And now?",
    "Which colours are these?",
)
REPLIES = ("I do.", "Hello.", "Yes.")


def picture(left: str, right: str, size: tuple[int, int], draw: random.Random) -> np.ndarray:
    """Return the pixels [height, width, 3] of a picture with two noisy halves."""
    width, height = size
    pixels = np.empty((height, width, 3), np.int32)
    pixels[:, : width // 2] = COLOURS[left]
    pixels[:, width // 2 :] = COLOURS[right]
    noise = np.random.default_rng(draw.randrange(2**32)).integers(-NOISE, NOISE + 1, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def answer_of(left: str, right: str) -> str:
    return f"{left} and {right}"


@dataclass(frozen=True)
class Example:
    tokens: list[int]  # a pad for each token of a picture
    answer: list[int]
    pictures: list[tuple[int, int, np.ndarray]]  # rows and columns of tokens, and the pixels


def seeing_folder() -> Path:
    """Return the model's folder; it is trained on first use and after changes of this file."""
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    return cached_folder(
        f"seeing-{digest[:16]}", partial(train_apart, "tests.mlx.vision.seeing_model")
    )


def build(folder: Path) -> Path:
    """Fill `folder`. Raises AssertionError if no training succeeds."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    config = _config(tokenizer)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    own = {"chat_template": CHATML_TEMPLATE, "model_max_length": CONTEXT_TOKENS}
    files = {
        "tokenizer_config.json": names | own,
        "config.json": config,
        "preprocessor_config.json": {
            "patch_size": 16,
            "merge_size": 2,
            "size": {"shortest_edge": 2 * UNIT**2, "longest_edge": 8 * UNIT**2},
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    for seed in SEEDS:
        if _Training(config, tokenizer, seed).run(folder):
            return folder
    raise AssertionError(f"no training of {len(SEEDS)} succeeded")


def _tokenizer() -> Tokenizer:
    corpus = [*TEXTS, *REPLIES, *(answer_of(one, other) for one in COLOURS for other in COLOURS)]
    tokenizer = byte_level_tokenizer(is_qwen=False, corpus=corpus * 3, size=330)
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in SEEN_TOKENS])
    assert all(tokenizer.token_to_id(text) is not None for text in (*CHATML_ADDED, *SEEN_TOKENS))
    return tokenizer


def _config(tokenizer: Tokenizer) -> dict[str, Any]:
    text = {
        "model_type": "qwen3_5_text",
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "full_attention_interval": 2,
        "linear_num_value_heads": 2,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "linear_conv_kernel_dim": 4,
        "max_position_embeddings": CONTEXT_TOKENS,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.5,
            "mrope_section": [4, 2, 2],
            "mrope_interleaved": True,
        },
    }
    vision = {
        "depth": 2,
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_heads": 4,
        "num_position_embeddings": 64,
        "out_hidden_size": WIDTH,
    }
    return {
        "model_type": "qwen3_5",
        "architectures": ["Qwen3_5ForConditionalGeneration"],
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
        "image_token_id": tokenizer.token_to_id("<|image_pad|>"),
        "vision_start_token_id": tokenizer.token_to_id("<|vision_start|>"),
        "vision_end_token_id": tokenizer.token_to_id("<|vision_end|>"),
        "text_config": text,
        "vision_config": vision,
    }


@dataclass(frozen=True)
class _Shape:
    """What the examples of a batch have in common, so that they have equally many tokens."""

    turns: tuple[tuple[tuple[int, int] | None, str, str], ...]  # grid of a picture, text, reply


class _Training:
    def __init__(self, config: dict[str, Any], tokenizer: Tokenizer, seed: int) -> None:
        import mlx.core as mx
        from mlx import nn
        from mlx_lm.models.qwen3_5 import Model, ModelArgs

        from pensieve.engine.model.vision.positions import use_multi_axis_rope
        from pensieve.engine.model.vision.tower import Tower

        mx.random.seed(seed)
        self._draw = random.Random(seed)
        self._tokenizer = tokenizer
        self._whole = nn.Module()
        self._whole.model = Model(ModelArgs.from_dict(json.loads(json.dumps(config))))
        shape = tower_shape_of(config)
        assert shape is not None
        self._whole.tower = Tower(shape)
        self._rope = use_multi_axis_rope(self._whole.model)
        # Without caches, attention names no positions.
        self._rotation: Any = None
        for layer in self._whole.model.layers:
            if not layer.is_linear:
                layer.self_attn.rope = lambda x, offset=0: self._rope(x, self._rotation)

    def run(self, folder: Path) -> bool:
        """Train in cycles of the learning rate until the model is right; return whether it is."""
        import mlx.core as mx
        import mlx.optimizers as optim
        from mlx import nn

        optimizer = optim.AdamW(learning_rate=RATE, betas=[0.9, 0.98], weight_decay=0.0)
        step = nn.value_and_grad(self._whole, self._loss)
        for at in range(MAX_CYCLES * STEPS):
            optimizer.learning_rate = RATE * _rate(at % STEPS)
            shape = self._shape(GRIDS[:-1])
            loss, gradients = step([self._example(shape) for _ in range(BATCH)])
            gradients, _ = optim.clip_grad_norm(gradients, 1.0)
            optimizer.update(self._whole, gradients)
            mx.eval(self._whole.parameters(), optimizer.state, loss)
            if (at + 1) % STEPS == 0 and self._is_right():
                self._save(folder)
                return True
        return False

    def _shape(self, grids: Sequence[tuple[int, int]]) -> _Shape:
        draw = self._draw
        turns: list[tuple[tuple[int, int] | None, str, str]] = []
        for _ in range(draw.choice([0, 0, 1])):
            grid = draw.choice([*grids, None])
            turns.append((grid, draw.choice(TEXTS), draw.choice(REPLIES)))
        text = QUESTION if draw.random() < 0.7 else draw.choice(TEXTS)
        return _Shape((*turns, (draw.choice(list(grids)), text, "")))

    def _example(self, shape: _Shape) -> Example:
        tokens: list[int] = []
        pictures: list[tuple[int, int, np.ndarray]] = []
        answer = ""
        for number, (grid, text, reply) in enumerate(shape.turns, 1):
            seen: list[int] = []
            if grid:
                (rows, columns), halves = grid, self._draw.choices(list(COLOURS), k=2)
                size = (columns * UNIT, rows * UNIT)
                pictures.append((rows, columns, picture(*halves, size, self._draw)))
                start, pad, end = (self._tokenizer.token_to_id(one) for one in SEEN_TOKENS)
                seen, answer = [start, *[pad] * (rows * columns), end], answer_of(*halves)
            tokens += [*self._ids("<|im_start|>user\n"), *seen, *self._ids(text)]
            tokens += self._ids("<|im_end|>\n<|im_start|>assistant\n")
            if number < len(shape.turns):
                tokens += self._ids(f"{answer if grid else reply}<|im_end|>\n")
        return Example(tokens, self._ids(f"{answer}<|im_end|>"), pictures)

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def _logits(self, examples: Sequence[Example]) -> Any:
        """Return the logits [examples, answer, vocabulary] of each token of the answers."""
        import mlx.core as mx

        from pensieve.engine.model.vision.positions import positions_between

        model, first = self._whole.model, examples[0]
        fed = [[*one.tokens, *one.answer[:-1]] for one in examples]
        embedded = model.language_model.model.embed_tokens(mx.array(fed))
        placed = list(self._placed(first))
        for row, example in enumerate(examples):
            for one, (_, _, pixels) in zip(placed, example.pictures, strict=True):
                rows = self._whole.tower(mx.array(pixels))
                embedded[row, one.tokens.start : one.tokens.stop] = rows
        self._rotation = self._rope.rotation(positions_between(placed, 0, len(fed[0])))
        return model(None, input_embeddings=embedded)[:, len(first.tokens) - 1 :]

    def _placed(self, example: Example) -> Iterator[PromptPicture]:
        pad, at = self._tokenizer.token_to_id("<|image_pad|>"), 0
        for rows, columns, _ in example.pictures:
            at = example.tokens.index(pad, at)
            yield (one := PromptPicture("", at, rows, columns))
            at = one.tokens.stop

    def _loss(self, examples: Sequence[Example]) -> Any:
        import mlx.core as mx
        from mlx import nn

        target = mx.array([example.answer for example in examples])
        return nn.losses.cross_entropy(self._logits(examples), target, reduction="mean")

    def _is_right(self) -> bool:
        """Whether it is right about pictures that it was not trained on."""
        import mlx.core as mx

        wrong = 0
        for number in range(TRIALS):
            shape = self._shape(GRIDS[-1:] if number % 3 == 0 else GRIDS)
            examples = [self._example(shape) for _ in range(BATCH)]
            found: Any = mx.argmax(self._logits(examples), axis=-1).tolist()
            wrong += sum(one != each.answer for one, each in zip(found, examples, strict=True))
        return wrong <= MOST_WRONG

    def _save(self, folder: Path) -> None:
        import mlx.core as mx
        from mlx.utils import tree_flatten

        flat: Any = tree_flatten(self._whole.parameters())
        weights = {
            name.replace("tower.", "vision_tower.", 1)
            if name.startswith("tower.")
            else name.removeprefix("model."): value
            for name, value in flat
        }
        mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})


def _rate(step: int) -> float:
    """Return the factor of the learning rate: a short warm-up, then a cosine."""
    return min(1, (step + 1) / 15) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / STEPS)))


if __name__ == "__main__":
    build(Path(sys.argv[1]))
