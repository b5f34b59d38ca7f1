"""A tiny llama that is taught a few answers by heart, as a complete mlx-lm folder: greedy, it says them and nothing else.

What it is taught stands behind the very prompts that pensieve renders. Two layers, a quarter of a million weights; under a
minute on two cores. With a tokenizer trained on the prompts themselves. With a window it looks no further back than that, twice:
taught with other beginnings each time, it answers right behind any.
"""

import json
import math
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from pensieve.api.messages.message import AnswerContent
from pensieve.api.messages.request import MessagesRequest, decode
from pensieve.dialects.dialect import ToolSpec
from pensieve.dialects.families.plain import tools_text
from pensieve.engine.client.launch import worker_variables
from pensieve.models.folder.snapshot import ModelFolder
from pensieve.models.load import open_model
from pensieve.prompt.render import PromptRenderer
from pensieve.prompt.template.generated_answers import GeneratedAnswer, GeneratedAnswers
from pensieve.settings.resolve import child_environment
from tests.tiny_models import CHATML_ADDED, CHATML_TEMPLATE

ROOT = Path(__file__).parents[1]
WIDTH = 96
LAYERS = 2
# Of one descent. After it hardly one answer in a hundred is missed that was not taught; where a look finds one, another follows.
STEPS = 60
STEPS_BEHIND_ANYTHING = 160
MAX_DESCENTS = 5
SEEDS = (7, 8, 9)
PEAK_RATE = 8e-3
# Versions that are not taught: by them it is seen whether what was learnt is what the others have in common.
UNSEEN = 12
LOOKS = 3
# For clients that sample, at a temperature of 1: what it would say becomes all that it says.
SHARPNESS = 6.0
# Of every token of an answer, after that.
SURE = 0.9999
# Tokens of a prompt that are learnt from, where others may stand before them.
LONGEST_PROMPT = 200


@dataclass(frozen=True)
class Lesson:
    """A request's body, and the text that answers it. content: what a client was told of that answer, if one was."""

    body: dict[str, Any]
    answer: str
    content: tuple[AnswerContent, ...] = ()

    def texts(self) -> list[str]:
        """What its prompt and its answer say, about."""
        told = [
            ToolSpec(tool["name"], tool["description"], tool["input_schema"])
            for tool in self.body.get("tools", ())
        ]
        tools = [tools_text(told)] if told else []
        return [*tools, json.dumps(self.body["messages"]), self.answer]


@dataclass(frozen=True)
class _Batch:
    """Prompts and answers, arrays. tokens: [rows, longest]. For each token of the answers, what it is, and where the one before it is."""

    tokens: Any
    row: Any
    place: Any
    said: Any


def train(lessons: Sequence[Lesson], folder: Path) -> ModelFolder:
    """Fill `folder` with a model that has learnt `lessons`."""
    texts = [text for lesson in lessons for text in lesson.texts()]
    model, config = _untrained(texts, folder, context_tokens=8192, window=0)
    batch = _batch(_rows(model, lessons))
    _teach(config, lambda: batch, folder, STEPS, lambda taught: _knows(taught, batch))
    return model


def train_apart(module: str, folder: Path) -> None:
    """Run `python -m module folder`, which fills the folder: in a process of its own, which alone can have OpenBLAS before MLX's
    own BLAS. 20 times as fast.
    """
    command = [sys.executable, "-m", module, str(folder)]
    subprocess.run(command, check=True, cwd=ROOT, env=child_environment(worker_variables("cpu")))


def train_behind_anything(
    lessons: Sequence[Sequence[Lesson]],
    noise: Sequence[str],
    exam: Sequence[Lesson],
    folder: Path,
    *,
    window: int,
) -> ModelFolder:
    """Fill `folder` with a model that has learnt `lessons`, each in several versions, whatever text precedes them.

    noise: texts that may precede them. exam: requests that it is not taught, in their order, and has to answer rightly,
    also where the answer is sampled, and whether earlier answers come back in their own tokens or are rendered. window: tokens to look back, in each of two layers. Raises AssertionError where no try passes.
    """
    texts = [text for versions in lessons for lesson in versions for text in lesson.texts()]
    model, config = _untrained([*texts, *noise], folder, context_tokens=32768, window=window)
    rows = [_rows(model, versions) for versions in lessons]
    asked = [*_rows(model, exam), *_rows(model, exam, GeneratedAnswers())]
    papers = [(prompt[-LAYERS * window :], answer) for prompt, answer in asked]
    before = open_model(model).tokenizer.encode("\n".join(noise))
    draw = random.Random(7)

    def batch(versions: slice, times: int) -> _Batch:
        drawn = (draw.choice(row[versions]) for row in rows for _ in range(times))
        return _batch([_behind_noise(one, before, draw) for one in drawn])

    def has_learnt(taught: Any) -> bool:
        return all(_knows(taught, batch(slice(UNSEEN), 16)) for _ in range(LOOKS)) and all(
            _is_sure(taught, _batch([paper])) for paper in papers
        )

    _teach(
        config,
        lambda: batch(slice(UNSEEN, None), 1),
        folder,
        STEPS_BEHIND_ANYTHING,
        has_learnt,
        sharpness=SHARPNESS,
    )
    return model


def _behind_noise(
    row: tuple[list[int], list[int]], noise: list[int], draw: random.Random
) -> tuple[list[int], list[int]]:
    """The end of the prompt, as far as anything in it counts."""
    length = draw.choice([0, 10, 40])
    start = draw.randrange(len(noise) - length)
    prompt, answer = row
    return noise[start : start + length] + prompt[-LONGEST_PROMPT:], answer


def _untrained(
    texts: Sequence[str], folder: Path, *, context_tokens: int, window: int
) -> tuple[ModelFolder, dict[str, Any]]:
    """A folder with weights to begin with: one without any is not a model."""

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(texts, 1500 if window else 900)
    config = _config(tokenizer, context_tokens) | _window_config(window)
    named = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    own = {"chat_template": CHATML_TEMPLATE, "model_max_length": context_tokens}
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(named | own))
    (folder / "config.json").write_text(json.dumps(config))
    _save(_seeded(config, SEEDS[0]), folder)
    return ModelFolder(name="taught", repo="tests/taught", folder=folder), config


def _tokenizer(texts: Sequence[str], size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False),
    )
    tokenizer.add_tokens([AddedToken(text, special=True) for text in CHATML_ADDED])
    return tokenizer


def _config(tokenizer: Tokenizer, context_tokens: int) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": context_tokens,
        "tie_word_embeddings": True,
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
        "vocab_size": tokenizer.get_vocab_size(),
    }


def _rows(
    model: ModelFolder, lessons: Sequence[Lesson], spoken: GeneratedAnswers | None = None
) -> list[tuple[list[int], list[int]]]:
    """Each lesson's prompt as pensieve renders it, and its answer up to the token that ends it.

    spoken: keeps the answers, so that they come back in their own tokens, as with a server.
    """
    served = open_model(model)
    renderer = PromptRenderer(served.tokenizer, served.dialect, served.context_tokens, spoken)
    end = min(served.stop_tokens & {served.tokenizer.controls["<|im_end|>"]})
    rows: list[tuple[list[int], list[int]]] = []
    for lesson in lessons:
        prompt = renderer.render(decode(MessagesRequest, lesson.body))
        answer = [*served.tokenizer.encode(lesson.answer), end]
        if spoken is not None and prompt.opening is not None:
            spoken.add(GeneratedAnswer(prompt.opening, answer, lesson.content))
        rows.append((list(prompt.tokens), answer))
    return rows


def _window_config(window: int) -> dict[str, Any]:
    """mlx-lm wants one layer that looks back at everything: it is there, does nothing and is not taught."""
    if not window:
        return {}
    layers = ["sliding_attention"] * LAYERS + ["full_attention"]
    return {"num_hidden_layers": len(layers), "layer_types": layers, "sliding_window": window}


def _seeded(config: dict[str, Any], seed: int) -> Any:
    import mlx.core as mx
    from mlx_lm.models.llama import Model, ModelArgs

    mx.random.seed(seed)
    model = Model(ModelArgs.from_dict(config))
    if "layer_types" in config:
        idle = model.model.layers[-1]
        for projection in (idle.self_attn.o_proj, idle.mlp.down_proj):
            projection.weight = mx.zeros_like(projection.weight)
    return model


def _save(model: Any, folder: Path) -> None:
    import mlx.core as mx
    from mlx.utils import tree_flatten

    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})


def _teach(
    config: dict[str, Any],
    batch: Callable[[], _Batch],
    folder: Path,
    steps: int,
    has_learnt: Callable[[Any], bool],
    sharpness: float = 1.0,
) -> None:
    """In descents of so many steps until the model has learnt; where it does not, once more from other weights.

    sharpness: what its logits are multiplied by afterwards.
    """
    for seed in SEEDS:
        model = _seeded(config, seed)
        layers = model.model.layers
        model.model.layers = layers[:LAYERS]
        if _descend(model, batch, steps, has_learnt):
            model.model.norm.weight = model.model.norm.weight * sharpness
            model.model.layers = layers
            _save(model, folder)
            return
    raise AssertionError(f"not learnt from any of {len(SEEDS)} beginnings")


def _descend(
    model: Any, batch: Callable[[], _Batch], steps: int, has_learnt: Callable[[Any], bool]
) -> bool:
    import mlx.core as mx
    import mlx.nn as nn
    import mlx.optimizers as optim

    optimizer = optim.AdamW(learning_rate=PEAK_RATE, betas=[0.9, 0.98], weight_decay=0.0)
    step = nn.value_and_grad(model, _loss)
    for at in range(MAX_DESCENTS * steps):
        optimizer.learning_rate = PEAK_RATE * _rate(at % steps, steps)
        loss, gradients = step(model, batch())
        gradients, _ = optim.clip_grad_norm(gradients, 1.0)
        optimizer.update(model, gradients)
        mx.eval(model.parameters(), optimizer.state, loss)
        if (at + 1) % steps == 0 and has_learnt(model):
            return True
    return False


def _rate(step: int, steps: int) -> float:
    """A short rise, then along a cosine."""
    return min(1, (step + 1) / 10) * (0.04 + 0.96 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _batch(rows: Sequence[tuple[list[int], list[int]]]) -> _Batch:
    import mlx.core as mx

    longest = max(len(prompt) + len(answer) for prompt, answer in rows)
    tokens = [prompt + answer + [0] * (longest - len(prompt + answer)) for prompt, answer in rows]
    before = [
        (at, len(prompt) + place - 1)
        for at, (prompt, answer) in enumerate(rows)
        for place in range(len(answer))
    ]
    said = [token for _, answer in rows for token in answer]
    return _Batch(mx.array(tokens), *mx.array(before).T, mx.array(said))


def _logits(model: Any, batch: _Batch) -> Any:
    """[tokens of answers, vocabulary]. Those of prompts would cost as much again."""
    # A cache for each layer that the folder has, or it looks for that of one which is not taught.
    hidden = model.model(batch.tokens, [None] * model.args.num_hidden_layers)
    return model.model.embed_tokens.as_linear(hidden[batch.row, batch.place])


def _loss(model: Any, batch: _Batch) -> Any:
    import mlx.nn as nn

    return nn.losses.cross_entropy(_logits(model, batch), batch.said, reduction="mean")


def _knows(model: Any, batch: _Batch) -> bool:
    import mlx.core as mx

    return mx.all(mx.argmax(_logits(model, batch), -1) == batch.said).item()


def _is_sure(model: Any, batch: _Batch) -> bool:
    import mlx.core as mx

    logits = _logits(model, batch) * SHARPNESS
    said = mx.take_along_axis(logits, batch.said[:, None], -1).squeeze(-1)
    return mx.all(said - mx.logsumexp(logits, -1) > math.log(SURE)).item()
