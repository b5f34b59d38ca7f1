"""Contents of hostile model folders: a name for each case, and a change to a good folder."""

import base64
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Spoil = Callable[[Path], None]

JSON_FILES = ("config.json", "tokenizer_config.json", "tokenizer.json")
INDEX = "model.safetensors.index.json"
BYTE_LEVEL = {
    "type": "ByteLevel",
    "add_prefix_space": True,
    "trim_offsets": True,
    "use_regex": False,
}
# A trie of one unit, and a replacement of 2000 characters.
CHARSMAP = base64.b64encode((4).to_bytes(4, "little") + bytes(4) + b"a" * 2000 + b"\0").decode()
DEEP = b"[" * 200_000 + b"]" * 200_000


def writes(name: str, content: bytes) -> Spoil:
    return lambda folder: _replace(folder / name).write_bytes(content)


def links(name: str, target: str) -> Spoil:
    return lambda folder: _replace(folder / name).symlink_to(target)


def pipes(name: str) -> Spoil:
    return lambda folder: os.mkfifo(_replace(folder / name))


def removes(name: str) -> Spoil:
    return lambda folder: (folder / name).unlink()


def makes_folder(name: str) -> Spoil:
    return lambda folder: _replace(folder / name).mkdir()


def grows(name: str, nbytes: int = 2**40) -> Spoil:
    """Enlarge a file without using disk space."""
    return lambda folder: os.truncate(folder / name, nbytes)


def changes(name: str, **fields: Any) -> Spoil:
    return lambda folder: _change(folder / name, fields)


def nests(*path: str, value: Any) -> Spoil:
    """Set a field deep in tokenizer.json."""

    def spoil(folder: Path) -> None:
        file = folder / "tokenizer.json"
        whole = part = json.loads(file.read_bytes())
        for name in path[:-1]:
            part = part[name]
        part[path[-1]] = value
        file.write_text(json.dumps(whole), encoding="utf-8")

    return spoil


def heads(header: bytes, length: int | None = None) -> Spoil:
    """Write a safetensors file with this header, whose stated length is `length`."""
    stated_length = len(header) if length is None else length
    return writes("model.safetensors", stated_length.to_bytes(8, "little") + header)


def replaces(pattern: Mapping[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def splits(pattern: str) -> dict[str, Any]:
    return {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }


def nested(step: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """Return 16 such steps per level."""
    inner = [step] * 16 if depth == 1 else [nested(step, depth - 1)] * 16
    return {"type": "Sequence", "normalizers": inner}


def _replace(file: Path) -> Path:
    file.unlink(missing_ok=True)
    return file


def _change(file: Path, fields: Mapping[str, Any]) -> None:
    decoded = json.loads(file.read_bytes()) if file.exists() else {}
    file.write_text(json.dumps(decoded | fields), encoding="utf-8")


def _tensors(**offsets: Any) -> bytes:
    tensors = {
        name: {"dtype": "F32", "shape": [1], "data_offsets": at} for name, at in offsets.items()
    }
    return json.dumps(tensors).encode()


# Values that no model has, by field.
_ODD: tuple[Any, ...] = (-3, "nine", 1.5, True, float("nan"), float("inf"), {}, 10**30)
FIGURES: dict[str, tuple[Any, ...]] = {
    "hidden_size": (*_ODD, 0, 10**15, [192]),
    "vocab_size": (*_ODD, 0, 10**12, [32064]),
    "num_attention_heads": (*_ODD, 0, 10**9, ["2"]),
    "num_key_value_heads": (*_ODD, 0, 10**9),
    "head_dim": (*_ODD, 0),
    "intermediate_size": (*_ODD, 10**9),
    "num_experts": (*_ODD, 10**9),
    "sliding_window": ("nine", -1, True),
    "quantization": ({"bits": 0}, {"bits": "4"}, {"group_size": -1}, {"bits": 4, "group_size": {}}),
}

# Refused by file names and headers, before the model is opened.
BAD_AT_ONCE: dict[str, Spoil] = {
    "weights are /dev/zero": links("model.safetensors", "/dev/zero"),
    "weights are a pipe": pipes("model.safetensors"),
    "weights are a folder": makes_folder("model.safetensors"),
    "weights link to themselves": links("model.safetensors", "model.safetensors"),
    "header of 99 MB": heads(b"{" + b" " * 99_000_000 + b"}"),
    "header of 2^64 bytes": heads(b"{}", 2**64 - 1),
    "header is deep JSON": heads(DEEP),
    "header is a list": heads(b"[]"),
    "header has text as offsets": heads(_tensors(a=["0", "4"])),
    "header has an object as offsets": heads(_tensors(a={"1": 4})),
    "header has negative offsets": heads(_tensors(a=[0, -4])),
    "header has huge offsets": heads(_tensors(a=[0, 10**30])),
    "header has infinite offsets": heads(b'{"a": {"data_offsets": [0, Infinity]}}'),
    "index is of numbers": changes(INDEX, weight_map={"a": 1}),
    "index is a list": changes(INDEX, weight_map=["a"]),
    "index leads out of the folder": changes(INDEX, weight_map={"a": "../../etc/passwd"}),
    "index names /dev/zero": changes(INDEX, weight_map={"a": "/dev/zero"}),
    "index names NUL": changes(INDEX, weight_map={"a": "a\0b"}),
    "index names too long a file": changes(INDEX, weight_map={"a": "a" * 5000}),
    "model_type leads out of the folder": changes("config.json", model_type="../../x"),
    "model_type has NUL": changes("config.json", model_type="a\0b"),
    "model_type is long": changes("config.json", model_type="a" * 10**5),
    "model_type is a list": changes("config.json", model_type=["phi3"]),
    **{
        f"num_hidden_layers is {value!r}": changes("config.json", num_hidden_layers=value)
        for value in (10**9, 10**30, -1, 0, "32", [32], {}, 1.5, True)
    },
    **{
        f"{name} is {value!r}": changes("config.json", **{name: value})
        for name, values in FIGURES.items()
        for value in values
    },
    "heads do not divide": changes("config.json", num_attention_heads=4, num_key_value_heads=3),
    "hidden size does not divide": changes("config.json", hidden_size=193, head_dim=None),
    "more experts are chosen than there are": changes(
        "config.json", num_experts=4, num_experts_per_tok=5
    ),
    "figures in text_config": changes("config.json", text_config={"num_attention_heads": 0}),
    "config.json is missing": removes("config.json"),
    "weights are missing": removes("model.safetensors"),
    "weights are an empty file": writes("model.safetensors", b""),
    "weights are a header alone": heads(b"{}"),
    "weights are metadata alone": heads(b'{"__metadata__": {"format": "mlx"}}'),
    "weights are cut short": grows("model.safetensors", 5000),
    "index names a file that is missing": changes(INDEX, weight_map={"a": "b.safetensors"}),
    "tokenizer is missing": removes("tokenizer.json"),
    "tokenizer is an empty file": writes("tokenizer.json", b""),
}

# The server cannot serve these folders and has to refuse.
BAD: dict[str, Spoil] = {
    **{f"{name} is deep JSON": writes(name, DEEP) for name in (*JSON_FILES, INDEX)},
    **{f"{name} is /dev/zero": links(name, "/dev/zero") for name in (*JSON_FILES, INDEX)},
    **{f"{name} is a pipe": pipes(name) for name in (*JSON_FILES, INDEX)},
    **{f"{name} is a terabyte": grows(name) for name in JSON_FILES},
    **{f"{name} is a folder": makes_folder(name) for name in JSON_FILES},
    **{f"{name} links to itself": links(name, name) for name in ("config.json", "tokenizer.json")},
    **{f"{name} is a list": writes(name, b"[]") for name in JSON_FILES},
    **{f"{name} is no UTF-8": writes(name, b'{"a": "\xff"}') for name in JSON_FILES},
    **{
        f"{name} has a number of 5000 digits": writes(name, b'{"a": %s}' % (b"9" * 5000))
        for name in JSON_FILES
    },
    **BAD_AT_ONCE,
    "vocabulary is empty": nests("model", "vocab", value={}),
    "vocabulary is a list": nests("model", "vocab", value=[]),
    "decoder is unknown": nests("decoder", value={"type": "Nonsense"}),
    "decoder is none of ours": nests(
        "decoder", value={"type": "WordPiece", "prefix": "##", "cleanup": True}
    ),
    "normalizer is no expression": nests(
        "normalizer", value={"type": "Replace", "pattern": {"Regex": "("}, "content": ""}
    ),
    "normalizer is none that there is": nests("normalizer", value={"type": "Grow"}),
    "six normalizers grow": nests(
        "normalizer",
        value={"type": "Sequence", "normalizers": [replaces({"String": "a"}, "a" * 28)] * 6},
    ),
    "nested normalizers grow": nests(
        "normalizer", value=nested(replaces({"String": "a"}, "aa"), 2)
    ),
    "prefixes grow": nests(
        "normalizer",
        value={"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "a" * 2000}]},
    ),
    "an empty match grows": nests("normalizer", value=replaces({"Regex": "(?=.)"}, "a" * 2000)),
    "a table of replacements grows": nests(
        "normalizer", value={"type": "Precompiled", "precompiled_charsmap": CHARSMAP}
    ),
    "a table of replacements is cut": nests(
        "normalizer", value={"type": "Precompiled", "precompiled_charsmap": "/////w=="}
    ),
    "pre-tokenizers grow": nests(
        "pre_tokenizer", value={"type": "Sequence", "pretokenizers": [BYTE_LEVEL] * 30}
    ),
    "pattern never ends": nests("pre_tokenizer", value=splits("(a+)+$|(?:a|aa)+b")),
    "pattern never ends for blanks": nests("pre_tokenizer", value=splits(r"(\s|\s\s)+[xy]")),
    "token is endless": nests("model", "vocab", value={"a" * 20_000: 0, "a": 1}),
    "suffix of parts is endless": nests("model", "end_of_word_suffix", value="a" * 1000),
    "chat template is no Jinja": changes("tokenizer_config.json", chat_template="{% for %}"),
    "chat template is deep": changes(
        "tokenizer_config.json", chat_template="{{" + "(" * 5000 + ")" * 5000 + "}}"
    ),
    "chat template nests loops": changes(
        "tokenizer_config.json", chat_template="{% for a in b %}" * 60 + "{% endfor %}" * 60
    ),
    "chat template nests blocks": changes(
        "tokenizer_config.json", chat_template="{% if a %}" * 3000 + "{% endif %}" * 3000
    ),
    "chat template names a number": changes("tokenizer_config.json", chat_template={"default": 5}),
    "chat_template.jinja is /dev/zero": links("chat_template.jinja", "/dev/zero"),
    "chat_template.jinja is a pipe": pipes("chat_template.jinja"),
    "chat_template.jinja is a folder": makes_folder("chat_template.jinja"),
    "chat_template.jinja is no UTF-8": writes("chat_template.jinja", b"\xff\xfe"),
    "chat_template.json is a pipe": lambda folder: (
        changes("tokenizer_config.json", chat_template=None)(folder),
        pipes("chat_template.json")(folder),
    )[0],
}

# The invalid part is optional: the server may answer, and must not crash.
HARMLESS: dict[str, Spoil] = {
    "max_position_embeddings is text": changes("config.json", max_position_embeddings="4096"),
    "max_position_embeddings is a list": changes("config.json", max_position_embeddings=[4096]),
    "chat templates are numbers": changes("tokenizer_config.json", chat_template=[1, 2]),
    "chat templates have no names": changes(
        "tokenizer_config.json", chat_template=[{"template": "a"}]
    ),
    "text_config in text_config": writes(
        "config.json",
        b'{"model_type":"phi3","text_config":' + b'{"text_config":' * 900 + b"{}" + b"}" * 901,
    ),
    "added token has an id of 2^31": nests(
        "added_tokens",
        value=[
            {
                "id": 2**31,
                "content": "<x>",
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
        ],
    ),
    "eos_token_id is text": changes("config.json", eos_token_id="2"),
    "eos_token_id is infinite": changes("config.json", eos_token_id=float("inf")),
    "eos_token_id is 2^64": changes("config.json", eos_token_id=2**64),
    "eos_token_id is deep": changes("config.json", eos_token_id=[[[2]]]),
    "eos_token is a number": changes("tokenizer_config.json", eos_token=5),
    "model_max_length is text": changes("tokenizer_config.json", model_max_length="4096"),
    "model_max_length is NaN": changes("tokenizer_config.json", model_max_length=float("nan")),
    "architectures is a number": changes("config.json", architectures=5),
    "quantization is text": changes("config.json", quantization="q4"),
    "marker is a pipe": pipes("pensieve.json"),
    "marker is /dev/zero": links("pensieve.json", "/dev/zero"),
    "marker is deep JSON": writes("pensieve.json", DEEP),
    "marker is a list": writes("pensieve.json", b"[]"),
    "marker has files of numbers": writes(
        "pensieve.json", b'{"repo": "a", "revision": "b", "files": [1]}'
    ),
    "generation_config.json is /dev/zero": links("generation_config.json", "/dev/zero"),
    "file names are no UTF-8": lambda folder: os.close(
        os.open(os.fsencode(folder) + b"/\xff.safetensors.txt", os.O_CREAT | os.O_WRONLY)
    ),
}
