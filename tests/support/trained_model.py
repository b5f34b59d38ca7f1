"""Train a tiny llama to give a few answers, as a complete mlx-lm folder; decode it greedily.

It is trained on the prompts that pensieve renders, with a tokenizer trained on the same texts. Two
layers, a quarter of a million weights; under a minute on two cores. A model with a window attends
to at most two windows: trained with random text before each prompt, it answers after any text.
"""

import json
import math
import random
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
from tests.support.programs import run_program
from tests.support.tiny_models import CHATML_ADDED, CHATML_TEMPLATE

ROOT = Path(__file__).parents[2]
WIDTH = 96
LAYERS = 2
# Of one cycle of the learning rate. After it hardly one in a hundred unseen answers is wrong; if
# validation finds one, another cycle follows.
STEPS = 60
STEPS_AFTER_ANY_TEXT = 160
MAX_CYCLES = 5
SEEDS = (7, 8, 9)
PEAK_RATE = 8e-3
# Versions that are held out for validation.
HELD_OUT = 12
VALIDATION_BATCHES = 3
# Factor of the logits for clients that sample at a temperature of 1.
LOGIT_SCALE = 6.0
# Of every token of an answer, with scaled logits.
MIN_PROBABILITY = 0.9999
# Tokens at the end of a prompt that are trained on, after random text.
MAX_PROMPT_TOKENS = 200


@dataclass(frozen=True)
class Lesson:
    """A request's body and the text of its answer."""

    body: dict[str, Any]
    answer: str
    content: tuple[AnswerContent, ...] = ()  # the answer's blocks, if a client received it

    def texts(self) -> list[str]:
        """Return texts for the tokenizer's training, roughly those of prompt and answer."""
        specs = [
            ToolSpec(tool["name"], tool["description"], tool["input_schema"])
            for tool in self.body.get("tools", ())
        ]
        tools = [tools_text(specs)] if specs else []
        return [*tools, json.dumps(self.body["messages"]), self.answer]


@dataclass(frozen=True)
class _Batch:
    """Arrays of prompts and answers."""

    tokens: Any  # [rows, length]
    # For each token of the answers: the row and position of its predecessor, and the token.
    row: Any
    position: Any
    target: Any


def train(lessons: Sequence[Lesson], folder: Path) -> ModelFolder:
    """Fill `folder` with a model that is trained on `lessons`."""
    texts = [text for lesson in lessons for text in lesson.texts()]
    model, config = _make_untrained(texts, folder, context_tokens=8192, window=0)
    batch = _batch(_rows(model, lessons))
    _train(config, lambda: batch, folder, STEPS, lambda trained: _predicts(trained, batch))
    return model


def train_apart(module: str, folder: Path) -> None:
    """Run `python -m module folder`, which fills the folder.

    Only a new process can load OpenBLAS before MLX's BLAS, which makes training 20 times as fast.
    """
    variables = child_environment(worker_variables("cpu"))
    run_program([sys.executable, "-m", module, folder], cwd=ROOT, env=variables)


def train_after_any_text(
    lessons: Sequence[Sequence[Lesson]],
    noise: Sequence[str],
    validation: Sequence[Lesson],
    folder: Path,
    *,
    window: int,
) -> ModelFolder:
    """Fill `folder` with a model that is trained on `lessons` after any text.

    lessons: each in several versions. noise: texts that may precede them. validation: requests that
    it is not trained on and must answer, also when sampled, with earlier answers as their own
    tokens or rendered again. window: tokens of attention in each of two layers. Raise
    AssertionError if no attempt passes validation.
    """
    texts = [text for versions in lessons for lesson in versions for text in lesson.texts()]
    model, config = _make_untrained([*texts, *noise], folder, context_tokens=32768, window=window)
    rows = [_rows(model, versions) for versions in lessons]
    validation_rows = [*_rows(model, validation), *_rows(model, validation, GeneratedAnswers())]
    trimmed = [(prompt[-LAYERS * window :], answer) for prompt, answer in validation_rows]
    noise_tokens = open_model(model).tokenizer.encode("\n".join(noise))
    draw = random.Random(7)

    def batch(versions: slice, times: int) -> _Batch:
        drawn = (draw.choice(row[versions]) for row in rows for _ in range(times))
        return _batch([_after_noise(one, noise_tokens, draw) for one in drawn])

    def is_valid(trained: Any) -> bool:
        held_out = (batch(slice(HELD_OUT), 16) for _ in range(VALIDATION_BATCHES))
        return all(_predicts(trained, each) for each in held_out) and all(
            _is_confident(trained, _batch([row])) for row in trimmed
        )

    _train(
        config,
        lambda: batch(slice(HELD_OUT, None), 1),
        folder,
        STEPS_AFTER_ANY_TEXT,
        is_valid,
        logit_scale=LOGIT_SCALE,
    )
    return model


def _after_noise(
    row: tuple[list[int], list[int]], noise: list[int], draw: random.Random
) -> tuple[list[int], list[int]]:
    """Return a row with random text before the last tokens of its prompt."""
    length = draw.choice([0, 10, 40])
    start = draw.randrange(len(noise) - length)
    prompt, answer = row
    return noise[start : start + length] + prompt[-MAX_PROMPT_TOKENS:], answer


def _make_untrained(
    texts: Sequence[str], folder: Path, *, context_tokens: int, window: int
) -> tuple[ModelFolder, dict[str, Any]]:
    """Make a folder with initial weights: without weights it is no model folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(texts, 1500 if window else 900)
    config = _config(tokenizer, context_tokens) | _window_config(window)
    named = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    own = {"chat_template": CHATML_TEMPLATE, "model_max_length": context_tokens}
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(named | own))
    (folder / "config.json").write_text(json.dumps(config))
    _save(_seeded(config, SEEDS[0]), folder)
    return ModelFolder(name="trained", repo="tests/trained", folder=folder), config


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
    model: ModelFolder, lessons: Sequence[Lesson], answers: GeneratedAnswers | None = None
) -> list[tuple[list[int], list[int]]]:
    """Return the tokens of each lesson's prompt as pensieve renders it, and of its answer.

    answers: stores the answers, so that later prompts have their own tokens, as in a server.
    """
    served = open_model(model)
    renderer = PromptRenderer(served.tokenizer, served.dialect, served.context_tokens, answers)
    end = min(served.stop_tokens & {served.tokenizer.controls["<|im_end|>"]})
    rows: list[tuple[list[int], list[int]]] = []
    for lesson in lessons:
        prompt = renderer.render(decode(MessagesRequest, lesson.body))
        answer = [*served.tokenizer.encode(lesson.answer), end]
        if answers is not None and prompt.opening is not None:
            answers.add(GeneratedAnswer(prompt.opening, answer, lesson.content))
        rows.append((list(prompt.tokens), answer))
    return rows


def _window_config(window: int) -> dict[str, Any]:
    """Return sliding-window layers, and the full-attention layer that mlx-lm requires.

    The latter has zero output and is not trained.
    """
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


def _train(
    config: dict[str, Any],
    batch: Callable[[], _Batch],
    folder: Path,
    steps: int,
    is_valid: Callable[[Any], bool],
    logit_scale: float = 1.0,
) -> None:
    """Train in cycles of `steps` until the model is valid; if never, from other weights."""
    for seed in SEEDS:
        model = _seeded(config, seed)
        layers = model.model.layers
        model.model.layers = layers[:LAYERS]
        if _optimize(model, batch, steps, is_valid):
            model.model.norm.weight = model.model.norm.weight * logit_scale
            model.model.layers = layers
            _save(model, folder)
            return
    raise AssertionError(f"not valid after training from {len(SEEDS)} seeds")


def _optimize(
    model: Any, batch: Callable[[], _Batch], steps: int, is_valid: Callable[[Any], bool]
) -> bool:
    import mlx.core as mx
    import mlx.nn as nn
    import mlx.optimizers as optim

    optimizer = optim.AdamW(learning_rate=PEAK_RATE, betas=[0.9, 0.98], weight_decay=0.0)
    step = nn.value_and_grad(model, _loss)
    for at in range(MAX_CYCLES * steps):
        optimizer.learning_rate = PEAK_RATE * _rate(at % steps, steps)
        loss, gradients = step(model, batch())
        gradients, _ = optim.clip_grad_norm(gradients, 1.0)
        optimizer.update(model, gradients)
        mx.eval(model.parameters(), optimizer.state, loss)
        if (at + 1) % steps == 0 and is_valid(model):
            return True
    return False


def _rate(step: int, steps: int) -> float:
    """Return the factor of the learning rate: a short warm-up, then a cosine."""
    return min(1, (step + 1) / 10) * (0.04 + 0.96 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _batch(rows: Sequence[tuple[list[int], list[int]]]) -> _Batch:
    import mlx.core as mx

    length = max(len(prompt) + len(answer) for prompt, answer in rows)
    tokens = [prompt + answer + [0] * (length - len(prompt + answer)) for prompt, answer in rows]
    predecessors = [
        (row, len(prompt) + index - 1)
        for row, (prompt, answer) in enumerate(rows)
        for index in range(len(answer))
    ]
    target = [token for _, answer in rows for token in answer]
    return _Batch(mx.array(tokens), *mx.array(predecessors).T, mx.array(target))


def _logits(model: Any, batch: _Batch) -> Any:
    """Return logits [answer tokens, vocabulary]; those of prompts would double the cost."""
    # One cache per layer of the config: the model looks up that of the untrained layer.
    hidden = model.model(batch.tokens, [None] * model.args.num_hidden_layers)
    return model.model.embed_tokens.as_linear(hidden[batch.row, batch.position])


def _loss(model: Any, batch: _Batch) -> Any:
    import mlx.nn as nn

    return nn.losses.cross_entropy(_logits(model, batch), batch.target, reduction="mean")


def _predicts(model: Any, batch: _Batch) -> bool:
    import mlx.core as mx

    return mx.all(mx.argmax(_logits(model, batch), -1) == batch.target).item()


def _is_confident(model: Any, batch: _Batch) -> bool:
    import mlx.core as mx

    logits = _logits(model, batch) * LOGIT_SCALE
    target = mx.take_along_axis(logits, batch.target[:, None], -1).squeeze(-1)
    return mx.all(target - mx.logsumexp(logits, -1) > math.log(MIN_PROBABILITY)).item()
