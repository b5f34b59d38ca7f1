"""Whether a folder's model sees: by its tensors, and in the sizes of its preprocessor."""

import json
from pathlib import Path

import pytest

from pensieve.models.folder.sight import END, PAD, START, Sight, sight_of

CONTROLS = {START: 1, PAD: 2, END: 3, "<|im_end|>": 4}
VISION = {
    "depth": 1,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_heads": 2,
    "num_position_embeddings": 16,
    "out_hidden_size": 64,
}
CONFIG = {"model_type": "qwen3_5", "vision_config": VISION}
QWENS = Sight(1, 2, 3, 32, 65_536, 16_777_216)
TOWER = "vision_tower.blocks.0.norm1.weight"
TEXT = "language_model.model.norm.weight"


def with_header(folder: Path, *names: str, config: object = CONFIG) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    tensor = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    header = json.dumps(dict.fromkeys(names, tensor)).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(4)
    (folder / "model.safetensors").write_bytes(content)
    return folder


@pytest.mark.parametrize(
    "name", [TOWER, "model.visual.merger.norm.weight", "visual.pos_embed.weight"]
)
@pytest.mark.parametrize("family", ["qwen3_5", "qwen3_5_moe"])
def test_a_model_with_a_tower_among_its_tensors_sees(
    name: str, family: str, tmp_path: Path
) -> None:
    config = CONFIG | {"model_type": family}
    folder = with_header(tmp_path, TEXT, name, config=config)
    assert sight_of(folder, config, CONTROLS) == QWENS


def test_a_config_without_the_tower_itself_does_not_see(tmp_path: Path) -> None:
    folder = with_header(tmp_path, TEXT, "model.audio.visual.weight")
    assert sight_of(folder, CONFIG, CONTROLS) is None


def test_other_families_do_not_see(tmp_path: Path) -> None:
    for config in (
        CONFIG | {"model_type": "qwen3_vl"},
        {"model_type": "qwen3_5"},
        CONFIG | {"vision_config": VISION | {"deepstack_visual_indexes": [5, 11, 17]}},
        CONFIG | {"vision_config": "large"},
    ):
        assert sight_of(with_header(tmp_path, TOWER, config=config), config, CONTROLS) is None


def test_a_tokenizer_without_the_marks_does_not_see(tmp_path: Path) -> None:
    with_header(tmp_path, TOWER)
    for mark in (START, PAD, END):
        controls = {text: token for text, token in CONTROLS.items() if text != mark}
        assert sight_of(tmp_path, CONFIG, controls) is None


@pytest.mark.parametrize(
    ("name", "content", "areas"),
    [
        ("preprocessor_config.json", {"size": {"shortest_edge": 4096, "longest_edge": 10**6}}, 0),
        ("preprocessor_config.json", {"min_pixels": 4096, "max_pixels": 10**6}, 0),
        (
            "processor_config.json",
            {"image_processor": {"size": {"shortest_edge": 4096, "longest_edge": 10**6}}},
            0,
        ),
        ("preprocessor_config.json", {"size": {"longest_edge": True, "shortest_edge": -1}}, 1),
        ("preprocessor_config.json", {"size": 3}, 1),
        ("processor_config.json", {"image_processor": []}, 1),
        ("preprocessor_config.json", [], 1),
    ],
)
def test_the_sizes_are_those_of_the_preprocessor(
    name: str, content: object, areas: int, tmp_path: Path
) -> None:
    (with_header(tmp_path, TOWER) / name).write_text(json.dumps(content))
    sight = sight_of(tmp_path, CONFIG, CONTROLS)
    assert sight is not None
    expected = [(4096, 10**6), (65_536, 16_777_216)][areas]
    assert (sight.min_pixels, sight.max_pixels) == expected


def test_a_limit_of_tokens_limits_the_area() -> None:
    assert QWENS.limited(1280).max_pixels == 1_310_720
    assert QWENS.limited(16_384) == QWENS
    small = Sight(1, 2, 3, 32, 400_000, 800_000).limited(64)
    assert (small.min_pixels, small.max_pixels) == (65_536, 65_536)
