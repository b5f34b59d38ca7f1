"""Tests that the front end's list of architectures matches what mlx-lm builds."""

from collections.abc import Collection
from typing import Any

from mlx_lm.utils import MODEL_ARCHITECTURE_REMAPPING, MODEL_REMAPPING, _get_classes

from pensieve.models.folder.architecture_support import MlxLm, installed_mlx_lm


def built_by_mlx_lm(configs: Collection[dict[str, Any]]) -> list[dict[str, Any]]:
    return [config for config in configs if is_built(config)]


def is_built(config: dict[str, Any]) -> bool:
    try:
        _get_classes(config)
    except (ValueError, AttributeError, SystemExit):  # no such module; no model in it; olmo.py
        return False
    return True


def configs_of(mlx_lm: MlxLm) -> list[dict[str, Any]]:
    """Return one config of each type that mlx-lm may support, and of two that it does not."""
    modules = [file.stem for file in sorted(mlx_lm.folder.joinpath("models").glob("[!_]*.py"))]
    return [
        *({"model_type": name} for name in (*modules, *MODEL_REMAPPING, "qwen9_super", "bert")),
        *(
            {"model_type": name, "architectures": [class_name]}
            for name, class_name in MODEL_ARCHITECTURE_REMAPPING
        ),
    ]


def test_supported_architectures_equal_those_that_mlx_lm_builds() -> None:
    mlx_lm = installed_mlx_lm()
    assert mlx_lm is not None
    configs = configs_of(mlx_lm)
    supported = [config for config in configs if mlx_lm.architecture(config)]
    assert len(supported) > 100
    assert supported == built_by_mlx_lm(configs)
