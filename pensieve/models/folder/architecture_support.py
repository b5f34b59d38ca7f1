"""Whether the installed mlx-lm loads a repository's or folder's model, by file names and
config.json.

Both are small, so a model is refused before its weights are fetched. Imports no MLX: mlx-lm is read
as files. The rules are those of mlx_lm/utils.py 0.32.2 (`_get_classes`, `load_model`).
"""

import ast
import importlib.metadata
import importlib.util
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, cast

from pensieve.engine.planning.mtp_files import is_head, is_named_for, model_named_by
from pensieve.errors import ModelUnsupportedError
from pensieve.models.catalog.sources import CATALOG

OTHERS = "Models that pensieve serves:\n  pensieve models"
MLX_FORMAT = (
    "Use the same model in MLX's format; many are under mlx-community/ on the Hub.\n" + OTHERS
)

_WEIGHTS = re.compile(r"model[\w.-]*\.safetensors(\.index\.json)?", re.ASCII)
_MODEL_TYPE = re.compile(r"[\w-]+", re.ASCII)
# Drafts of mlx-community have types like qwen3_5_mtp, deepseek_v4_mtp, gemma4_assistant; others
# have an ordinary type and a class for it: DFlash2DraftModel, LlamaForCausalLMEagle3.
_DRAFT_TYPE = re.compile(r"(^|_)(mtp|assistant|eagle\d?|dflash\d?|dspark|draft(er)?|medusa)$")
_DRAFT_CLASS = re.compile(r"MTP$|Draft|DFlash|DSpark|Eagle|Medusa|Speculator")
# Names of transformers' classes for models that write no text.
_OTHER_JOB = re.compile(
    r"For(MaskedLM|\w*Classification|QuestionAnswering|RewardModel|CTC|SpeechSeq2Seq"
    r"|Segmentation|ObjectDetection|DepthEstimation|TextEncoding)$"
)
# The Hub's tasks whose output is not text. By its config an embedding model can look like any
# other.
_OTHER_TASKS = frozenset(
    {
        *("feature-extraction", "sentence-similarity", "text-ranking", "text-classification"),
        *("token-classification", "fill-mask", "zero-shot-classification"),
        *("text-to-image", "image-to-image", "text-to-video", "image-to-video", "text-to-3d"),
        *("text-to-speech", "text-to-audio", "automatic-speech-recognition", "audio-to-audio"),
        *("image-classification", "image-segmentation", "object-detection", "depth-estimation"),
    }
)

# MLX's own quantization modes (mx.quantize, MLX 0.32.4).
_MODES = frozenset({"affine", "mxfp4", "mxfp8", "nvfp4"})
# Other methods that mlx-lm converts to these. It also converts "awq" and "gptq" for dense models of
# 4 bits without a group index; GPTQ's files always have one, and no AWQ model was tried here, so
# both are refused.
_METHODS = frozenset({"bitnet", "mxfp4", "mxfp8"})
_COMPRESSED_FORMATS = frozenset({"nvfp4-pack-quantized", "mxfp4-pack-quantized", "pack-quantized"})


@dataclass(frozen=True, slots=True)
class MlxLm:
    """An installed mlx-lm, read from its files."""

    folder: Path
    version: str
    other_types: Mapping[str, str]  # model type to the module that builds it
    other_classes: Mapping[tuple[str, str], str]  # the same by type and class

    def architecture(self, config: Mapping[str, Any]) -> str | None:
        """Return the source of the module that builds a model of this config; None without one."""
        name = self._module_name(str(config["model_type"]), _architectures(config))
        file = self.folder / "models" / f"{name}.py"
        if not _MODEL_TYPE.fullmatch(name) or not file.is_file():
            return None
        source = file.read_text(encoding="utf-8")
        return source if _is_usable(ast.parse(source)) else None

    def _module_name(self, model_type: str, classes: Collection[str]) -> str:
        keys = ((model_type, name) for name in classes)
        modules = (self.other_classes[key] for key in keys if key in self.other_classes)
        return next(modules, self.other_types.get(model_type, model_type))


def installed_mlx_lm() -> MlxLm | None:
    """Return the mlx-lm that the engine worker will import; None if it is missing or of an unknown
    layout.

    With None no model is refused; the worker reports what it cannot load.
    """
    spec = importlib.util.find_spec("mlx_lm")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations)))
    try:
        tables = _tables((folder / "utils.py").read_text(encoding="utf-8"))
        return MlxLm(
            folder,
            importlib.metadata.version("mlx-lm"),
            tables["MODEL_REMAPPING"],
            tables["MODEL_ARCHITECTURE_REMAPPING"],
        )
    except (OSError, ValueError, SyntaxError, LookupError, ImportError):
        return None


def check_task(name: str, task: str | None) -> None:
    """Raise `ModelUnsupportedError` for a Hub task other than writing text."""
    if task in _OTHER_TASKS:
        raise _other_job(name, task)


def check_files(name: str, files: Collection[str]) -> None:
    """Raise `ModelUnsupportedError` if the file names show something else than an MLX text
    model.
    """
    if "model_index.json" in files:
        raise ModelUnsupportedError(f"{name} draws pictures; it writes no text.", hint=OTHERS)
    if {"modules.json", "config_sentence_transformers.json"} & set(files):
        raise ModelUnsupportedError(
            f"{name} turns text into embeddings; it writes none.", hint=OTHERS
        )
    if any(_WEIGHTS.fullmatch(file) for file in files):
        return
    if "adapter_config.json" in files:
        raise ModelUnsupportedError(
            f"{name} is an adapter (LoRA), not the model that it changes.",
            hint="Merge it into its model and serve the result. With an adapter made by mlx-lm:\n"
            "  mlx_lm.fuse --model MODEL --adapter-path ADAPTER --save-path FOLDER\n"
            "  pensieve start --model FOLDER",
        )
    for suffix, kind in ((".gguf", "GGUF files"), (".bin", "pickles"), (".pt", "pickles")):
        if any(file.endswith(suffix) for file in files):
            raise ModelUnsupportedError(
                f"{name} has its weights in {kind}, which pensieve does not read.", hint=MLX_FORMAT
            )


def check_config(name: str, config: Mapping[str, Any], mlx_lm: MlxLm | None) -> None:
    """Raise `ModelUnsupportedError` if `mlx_lm` cannot build a text model from this config.json."""
    if "model_file" in config:
        raise ModelUnsupportedError(
            f"config.json of {name} names Python code to run (model_file), and pensieve runs no"
            " model's code.",
            hint="Use a model that mlx-lm knows without code of its own:\n  pensieve models",
        )
    if not isinstance(config.get("model_type"), str):
        raise ModelUnsupportedError(f"config.json of {name} names no model_type.", hint=MLX_FORMAT)
    _check_job(name, config)
    if mlx_lm is None:
        return
    source = mlx_lm.architecture(config)
    if source is None:
        raise ModelUnsupportedError(
            f"{name} is of the type {config['model_type']}, which mlx-lm {mlx_lm.version} does not"
            " load.",
            hint="A newer pensieve may bring an mlx-lm that does:\n  pensieve update\n" + OTHERS,
        )
    if kind := _unread_quantization(config, source):
        raise ModelUnsupportedError(
            f"{name} is quantized by {kind}, which mlx-lm {mlx_lm.version} does not read.",
            hint=MLX_FORMAT,
        )


def refuse_head(name: str, hint: str) -> NoReturn:
    """Raise the error for an MTP head in the place of a model."""
    raise ModelUnsupportedError(
        f"{name} is an MTP head, which makes another model faster and writes nothing by itself.",
        hint=hint,
    )


def model_for_head(repo: str) -> str:
    """Return the model for a head: of the catalog, else what its name suggests."""
    is_for = partial(is_named_for, repo.rpartition("/")[2])
    named = (model.name for model in CATALOG if is_for(model.repo.rpartition("/")[2]))
    return next(named, model_named_by(repo))


def _check_job(name: str, config: Mapping[str, Any]) -> None:
    if is_head(config):
        commands = f"  pensieve pull {name}\n  pensieve start --model {model_for_head(name)}"
        refuse_head(name, f"Download it, and serve its model:\n{commands}")
    classes = _architectures(config)
    if _DRAFT_TYPE.search(config["model_type"]) or any(map(_DRAFT_CLASS.search, classes)):
        raise ModelUnsupportedError(
            f"{name} is a draft, which makes another model faster and writes nothing by itself.",
            hint="Serve the model that it was made for; its page on the Hub names it.\n" + OTHERS,
        )
    if other := next(filter(_OTHER_JOB.search, classes), None):
        raise _other_job(name, other)


def _other_job(name: str, job: str) -> ModelUnsupportedError:
    return ModelUnsupportedError(
        f"{name} is made for another task than to write text ({job}).", hint=OTHERS
    )


def _unread_quantization(config: Mapping[str, Any], source: str) -> str | None:
    """Return the quantization if mlx-lm does not read it, or reads it wrongly; else None."""
    if own := _table(config.get("quantization")):
        mode = str(own.get("mode", "affine"))
        return None if mode in _MODES else mode
    inner = _table(config.get("text_config")).get("quantization_config")
    foreign = _table(config.get("quantization_config") or inner)
    if not foreign:
        return None
    method = str(foreign.get("quant_method", "an unnamed method"))
    is_read = {
        "fp8": _is_mxfp8(foreign) or "weight_scale_inv" in source,
        "compressed-tensors": foreign.get("format") in _COMPRESSED_FORMATS,
        "modelopt": _table(foreign.get("quantization", foreign)).get("quant_algo") == "NVFP4",
    }.get(method, method in _METHODS)
    return None if is_read else method


def _is_mxfp8(quantization: Mapping[str, Any]) -> bool:
    """Return False for other fp8 weights, which some architectures expand by `weight_scale_inv`."""
    blocks = quantization.get("weight_block_size")
    return quantization.get("scale_fmt") == "ue8m0" and blocks == [32, 32]


def _architectures(config: Mapping[str, Any]) -> tuple[str, ...]:
    classes = config.get("architectures")
    if isinstance(classes, list):
        return tuple(map(str, cast("list[object]", classes)))
    return (classes,) if isinstance(classes, str) else ()


def _table(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _tables(source: str) -> dict[str, Any]:
    """Return the type tables that a module assigns at top level. Raises ValueError if one is not a
    literal.
    """
    return {
        target.id: ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id.endswith("_REMAPPING")
    }


def _is_usable(module: ast.Module) -> bool:
    """Whether a module has a model and all its imports are installed.

    Some modules are parts that models share, such as cache.py; olmo.py ends the process that
    imports it without a package that mlx-lm does not require.
    """
    names = {node.name for node in module.body if isinstance(node, ast.ClassDef)}
    absent: list[str] = []
    for node in ast.walk(module):
        match node:
            case ast.ImportFrom(level=0, module=str(source)):
                absent += _absent(source)
            case ast.ImportFrom(names=imported):
                names |= {alias.name for alias in imported}
            case ast.Import(names=imported):
                absent += [name for alias in imported for name in _absent(alias.name)]
            case _:
                pass
    return {"Model", "ModelArgs"} <= names and not absent


def _absent(module: str) -> list[str]:
    top_level = module.partition(".")[0]
    return [] if importlib.util.find_spec(top_level) else [top_level]
