import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models

from pensieve.errors import ModelDamagedError
from pensieve.models.catalog.sources import LocalModel
from pensieve.models.folder.integrity import check_kind
from pensieve.models.folder.snapshot import (
    MARKER,
    ModelFile,
    ModelFolder,
    Snapshot,
    is_present,
    write_snapshot,
)
from pensieve.models.load import open_model
from tests.support import tiny_models
from tests.support.programs import run_program

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def change(model: ModelFolder, name: str, **changes: Any) -> None:
    file = model.folder / name
    stored = json.loads(file.read_bytes()) if file.exists() else {}
    stored |= changes
    kept = {key: value for key, value in stored.items() if value is not None}
    file.write_text(json.dumps(kept), encoding="utf-8")


def test_a_model_of_each_kind_opens(tiny_model: ModelFolder) -> None:
    served = open_model(tiny_model)
    assert served.name == tiny_model.name
    assert served.size_bytes == (tiny_model.folder / "model.safetensors").stat().st_size
    assert served.created_at > 1_700_000_000
    rendered = served.tokenizer.render([{"role": "user", "content": "Hello"}])
    assert served.tokenizer.encode(rendered)


class Denied(type(Path())):
    """A folder that macOS's privacy control, or its mode, denies to this process."""

    errno = errno.EPERM

    def _refuse(self, *_: object, **__: object) -> bytes:
        raise PermissionError(self.errno, os.strerror(self.errno), str(self))

    exists = is_file = stat = open = read_bytes = read_text = iterdir = _refuse


class Unreadable(Denied):
    errno = errno.EACCES


@pytest.mark.parametrize(
    ("kind", "says", "command"),
    [(Denied, "Operation not permitted", "cp -R"), (Unreadable, "Permission denied", "chmod")],
)
def test_an_unreadable_folder_raises_with_advice(kind: type[Path], says: str, command: str) -> None:
    folder = kind("/Users/me/Documents/my model")
    assert is_present(LocalModel("my model", folder), Path("/models"))
    model = ModelFolder("my model", "my model", folder)
    with pytest.raises(ModelDamagedError, match=says):
        check_kind(model)
    with pytest.raises(ModelDamagedError, match=says) as refusal:
        open_model(model)
    assert command in (refusal.value.hint or "")
    assert "'/Users/me/Documents/my model'" in (refusal.value.hint or "")


@pytest.mark.parametrize("kind", ["phi3", "phi3-longrope"])
def test_phi3_stops_on_all_of_its_ends_whatever_its_config_says(
    kind: tiny_models.Kind, tmp_path: Path
) -> None:
    model = tiny_models.folder_of(kind, tmp_path)
    assert json.loads((tmp_path / "config.json").read_bytes())["eos_token_id"] == 32000
    served = open_model(model)
    assert served.stop_tokens >= {32000, 32001, 32007}
    assert served.context_tokens == 131072


@pytest.mark.parametrize("kind", ["phi3", "phi3-longrope"])
def test_mlx_lm_loads_the_weights_of_either_rope_scaling(
    kind: tiny_models.Kind, tmp_path: Path
) -> None:
    from mlx_lm.utils import load_model

    model, config = load_model(tiny_models.build(kind, tmp_path))
    assert config["rope_scaling"]["type"] == kind.removeprefix("phi3-").replace("phi3", "su")
    assert len(model.layers) == 2


def test_transformers_still_fails_on_rope_scaling_su(tmp_path: Path) -> None:
    """The reason for not loading the tokenizer by it. If this fails, the workaround can be
    removed.
    """
    from transformers import AutoTokenizer

    with pytest.raises(KeyError, match="original_max_position_embeddings"):
        AutoTokenizer.from_pretrained(tiny_models.build("phi3", tmp_path))


def test_opening_a_model_loads_neither_mlx_nor_transformers_nor_the_hub(
    tiny_phi3: ModelFolder,
) -> None:
    code = (
        "import sys; from pathlib import Path; from pensieve.models.load import open_model;"
        "from pensieve.models.folder.snapshot import ModelFolder; "
        "open_model(ModelFolder('n', 'r', Path(sys.argv[1])));"
        "print({'mlx', 'mlx_lm', 'transformers', 'huggingface_hub', 'numpy'} & sys.modules.keys())"
    )
    command = [sys.executable, "-c", code, tiny_phi3.folder]
    result = run_program(command, cwd=Path(__file__).parents[2])
    assert result.stdout.strip() == "set()"


def test_older_tokenizer_files_are_converted(tiny_qwen3: ModelFolder, tmp_path: Path) -> None:
    expected = open_model(tiny_qwen3).tokenizer
    folder = tmp_path / "older"
    folder.mkdir()
    for file in tiny_qwen3.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    stored = json.loads((folder / "tokenizer.json").read_bytes())
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(stored["model"]["vocab"]))
    merges = "\n".join(" ".join(pair) for pair in stored["model"]["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    added = {str(token["id"]): token for token in stored["added_tokens"]}
    change(
        ModelFolder("m", "r", folder),
        "tokenizer_config.json",
        tokenizer_class="Qwen2Tokenizer",
        added_tokens_decoder=added,
    )
    older = open_model(ModelFolder("m", "r", folder)).tokenizer
    text = "<|im_start|>user\nHello, where is the river? 🙂<|im_end|>"
    assert older.encode(text) == expected.encode(text)


@pytest.mark.parametrize("ends", [32007, [32007, 5]])
def test_stop_tokens_are_collected_from_all_files(own_copy: ModelFolder, ends: Any) -> None:
    change(own_copy, "config.json", eos_token_id=[7])
    change(own_copy, "generation_config.json", eos_token_id=ends)
    change(own_copy, "tokenizer_config.json", eos_token={"content": "<|placeholder1|>"})
    expected = {7, *(ends if isinstance(ends, list) else [ends]), 32002}
    assert open_model(own_copy).stop_tokens >= expected


def test_the_end_of_a_part_does_not_stop_the_answer(own_copy: ModelFolder) -> None:
    """gpt-oss ends its thinking with <|end|> and continues."""
    file = own_copy.folder / "tokenizer.json"
    file.write_text(file.read_text(encoding="utf-8").replace("<|placeholder1|>", "<|channel|>"))
    assert 32007 not in open_model(own_copy).stop_tokens


@pytest.mark.parametrize(
    ("config", "tokenizer", "expected"),
    [
        ({"max_position_embeddings": 512}, {"model_max_length": 99}, 512),
        ({"max_position_embeddings": None, "n_ctx": 640}, {}, 640),
        (
            {"max_position_embeddings": None, "text_config": {"max_position_embeddings": 777}},
            {},
            777,
        ),
        ({"max_position_embeddings": None}, {"model_max_length": 1024}, 1024),
        ({"max_position_embeddings": None}, {"model_max_length": 10**30}, 4096),
    ],
)
def test_the_models_context_precedes_the_tokenizers(
    own_copy: ModelFolder, config: dict[str, Any], tokenizer: dict[str, Any], expected: int
) -> None:
    change(own_copy, "config.json", **config)
    change(own_copy, "tokenizer_config.json", **tokenizer)
    assert open_model(own_copy).context_tokens == expected


def rendered(model: ModelFolder) -> str:
    return open_model(model).tokenizer.render([{"role": "user", "content": "Hi"}])


def test_the_template_is_found_like_in_transformers(own_copy: ModelFolder) -> None:
    templates = [{"name": "tools", "template": "T"}, {"name": "default", "template": "named"}]
    change(own_copy, "chat_template.json", chat_template="json")
    change(own_copy, "tokenizer_config.json", chat_template=None)
    assert rendered(own_copy) == "json"
    change(own_copy, "tokenizer_config.json", chat_template=templates)
    assert rendered(own_copy) == "named"
    change(own_copy, "tokenizer_config.json", chat_template="config")
    assert rendered(own_copy) == "config"
    (own_copy.folder / "chat_template.jinja").write_text("file")
    assert rendered(own_copy) == "file"


TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}
NAMED = {
    "default": "{% for m in messages %}{{ m.content }}{% endfor %}",
    "tool_use": "TOOLS{{ tools | tojson }}",
    "rag": "{{ documents }}",
}


def as_list(model: ModelFolder) -> None:
    templates = [{"name": name, "template": source} for name, source in NAMED.items()]
    change(model, "tokenizer_config.json", chat_template=templates)


def as_files(model: ModelFolder) -> None:
    (model.folder / "chat_template.jinja").write_text(NAMED["default"])
    folder = model.folder / "additional_chat_templates"
    folder.mkdir()
    for name in ("tool_use", "rag"):
        (folder / f"{name}.jinja").write_text(NAMED[name])


def as_files_beside_the_config(model: ModelFolder) -> None:
    as_files(model)
    (model.folder / "chat_template.jinja").unlink()
    change(model, "tokenizer_config.json", chat_template=NAMED["default"])


@pytest.mark.parametrize("store", [as_list, as_files, as_files_beside_the_config])
def test_conversations_with_tools_get_the_template_for_tools(
    own_copy: ModelFolder, store: Callable[[ModelFolder], None]
) -> None:
    store(own_copy)
    served = open_model(own_copy)
    render, question = served.tokenizer.render, {"role": "user", "content": "Hi"}
    assert served.dialect.has_tool_template
    assert render([question]) == "Hi"
    assert render([question], {"tools": [TOOL]}).startswith("TOOLS[{")
    assert render([question], {"tools": []}) == "TOOLS[]"
    assert render([question, {"role": "tool", "content": "x"}]).startswith("TOOLS")


def test_a_single_template_is_for_all_conversations(own_copy: ModelFolder) -> None:
    assert not open_model(own_copy).dialect.has_tool_template


# Text after an answer, in templates of families whose end tokens are in no list.
ENDINGS = {
    "<turn|>": "<|turn>{role}\n{content}<turn|>\n",
    "[e~[": "]~b]{role}\n{content}[e~[\n",
    "<|eot|>": "<|header|>{role}\n{content}<|eot|>",
    "<|END_OF_TURN_TOKEN|>": "<|START_OF_TURN_TOKEN|>{role}{content}<|END_OF_TURN_TOKEN|>",
    "<|the next one|>": "<|say|>{role}:{content}<|the next one|>",
}


def with_tokens(model: ModelFolder, *texts: str) -> dict[str, int]:
    """Add control tokens to the model's tokenizer and return their ids."""
    tokenizer = Tokenizer.from_file(str(model.folder / "tokenizer.json"))
    tokenizer.add_special_tokens(list(texts))
    tokenizer.save(str(model.folder / "tokenizer.json"))
    return {text: tokenizer.token_to_id(text) for text in texts}


@pytest.mark.parametrize("end", ENDINGS)
def test_the_templates_end_of_turn_is_a_stop_token(own_copy: ModelFolder, end: str) -> None:
    form = ENDINGS[end]
    ids = with_tokens(own_copy, end, form.partition("{")[0])
    turn = form.replace("{role}", "' + m.role + '").replace("{content}", "' + m.content + '")
    turn = turn.replace("\n", "\\n")
    opening = form.partition("{content}")[0].replace("{role}", "assistant").replace("\n", "\\n")
    template = (
        f"{{% for m in messages %}}{{{{ '{turn}' }}}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{{{{ '{opening}' }}}}{{% endif %}}"
    )
    change(own_copy, "tokenizer_config.json", chat_template=template)
    stops = open_model(own_copy).stop_tokens
    assert ids[end] in stops
    assert ids[form.partition("{")[0]] not in stops
    assert 32007 not in stops  # <|end|>, which this template never writes


def test_a_template_without_an_end_uses_the_known_ones(
    own_copy: ModelFolder,
) -> None:
    change(own_copy, "tokenizer_config.json", chat_template="{{ raise_exception('no') }}")
    assert open_model(own_copy).stop_tokens >= {32001, 32007, 32010}


def test_a_model_without_a_template_gets_a_transcript(own_copy: ModelFolder) -> None:
    change(own_copy, "tokenizer_config.json", chat_template=None)
    assert rendered(own_copy) == "<s>User: Hi\n\nAssistant:"


def index_without_its_shard(model: ModelFolder) -> None:
    weights = {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}
    change(model, "model.safetensors.index.json", weight_map=weights)


def truncated(model: ModelFolder) -> None:
    file = model.folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def other_size_than_published(model: ModelFolder) -> None:
    write_snapshot(Snapshot("r", "c", (ModelFile("config.json", 1),)), model.folder / MARKER)


def lost_after_publishing(model: ModelFolder) -> None:
    write_snapshot(Snapshot("r", "c", (ModelFile("merges.txt", 1),)), model.folder / MARKER)


def written(name: str, content: bytes) -> Callable[[ModelFolder], None]:
    def write(model: ModelFolder) -> None:
        (model.folder / name).write_bytes(content)

    return write


def removed(name: str) -> Callable[[ModelFolder], None]:
    return lambda model: (model.folder / name).unlink()


def no_vocabulary(model: ModelFolder) -> None:
    Tokenizer(models.BPE()).save(str(model.folder / "tokenizer.json"))


DAMAGE: dict[str, tuple[Callable[[ModelFolder], None], str]] = {
    "a shard that the index names is missing": (
        index_without_its_shard,
        "model-00002-of-00002.safetensors",
    ),
    "the weights are cut off": (truncated, "model.safetensors"),
    "the weights are empty": (written("model.safetensors", b""), "model.safetensors"),
    "the weights are noise": (written("model.safetensors", b"\xff" * 400), "model.safetensors"),
    "the weights are a Git LFS pointer": (
        written("model.safetensors", LFS_POINTER),
        "model.safetensors",
    ),
    "the weights are missing": (removed("model.safetensors"), "model.safetensors"),
    "the tokenizer is a Git LFS pointer": (
        written("tokenizer.json", LFS_POINTER),
        "tokenizer.json",
    ),
    "the tokenizer is empty": (written("tokenizer.json", b""), "tokenizer.json"),
    "the tokenizer is no tokenizer": (written("tokenizer.json", b"{}"), "tokenizer.json"),
    "the tokenizer has no vocabulary": (no_vocabulary, "tokenizer.json"),
    "the tokenizer is missing": (removed("tokenizer.json"), "tokenizer.json"),
    "the config is missing": (removed("config.json"), "config.json"),
    "the config is not JSON": (written("config.json", b'{"model_type": '), "config.json"),
    "the config is not an object": (written("config.json", b"[]"), "config.json"),
    "the config has no type": (written("config.json", b"{}"), "config.json"),
    "a file's size is not the published one": (other_size_than_published, "config.json"),
    "a published file is missing": (lost_after_publishing, "merges.txt"),
    "the template is not Jinja": (written("chat_template.jinja", b"{% if %}"), "template"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_model_raises_with_file_and_advice(own_copy: ModelFolder, damage: str) -> None:
    do, name = DAMAGE[damage]
    do(own_copy)
    with pytest.raises(ModelDamagedError) as caught:
        open_model(own_copy)
    assert name in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 65


def test_a_damaged_fetched_model_raises_with_the_pull_command(own_copy: ModelFolder) -> None:
    other_size_than_published(own_copy)
    with pytest.raises(ModelDamagedError) as caught:
        open_model(own_copy)
    assert (caught.value.hint or "").endswith("\n  pensieve pull tiny-phi3")
