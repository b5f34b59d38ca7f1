"""Read a model folder's generation_config.json: recommended sampling, and tokens that end answers.

The file is optional: unusable fields are ignored and reported.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from pensieve.dialects.sampling_defaults import NEUTRAL, SamplingDefaults
from pensieve.errors import SettingsError
from pensieve.models.folder.model_files import read_file
from pensieve.settings.resolve import Settings
from pensieve.settings.spec import SAMPLING_KEYS
from pensieve.untrusted_json import read_json

NAME = "generation_config.json"
# The largest id that the engine's arrays hold; no vocabulary has as many.
MAX_TOKEN_ID = 2**31 - 1


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    sampling: SamplingDefaults = NEUTRAL
    stop_tokens: tuple[int, ...] = ()
    problems: tuple[str, ...] = ()  # ignored fields, and why

    def with_settings(self, settings: Settings) -> "GenerationConfig":
        """Return the config with the sampling values that `settings` have."""
        return replace(self, sampling=self.sampling.updated(settings.sampling, "setting"))


def read_generation_config(folder: Path) -> GenerationConfig:
    """Read the file in `folder`; defaults if there is none. Never raises."""
    try:
        content = read_json(read_file(folder / NAME))
    except FileNotFoundError:
        return GenerationConfig()
    except OSError as error:
        return GenerationConfig(problems=(f"it cannot be read ({error.strerror})",))
    except ValueError:
        return GenerationConfig(problems=("it is not JSON",))
    if not isinstance(content, dict):
        return GenerationConfig(problems=("it is not a JSON object",))
    fields = cast("dict[str, Any]", content)
    problems: list[str] = []
    values = _sampling(fields, problems)
    return GenerationConfig(
        NEUTRAL.updated(values, NAME),
        tuple(token_ids(fields.get("eos_token_id"))),
        tuple(problems),
    )


def token_ids(value: object) -> Iterable[int]:
    """Return the valid ids of a field that holds an id, a list of ids, or anything else."""
    entries = cast("list[object]", value) if isinstance(value, list) else [value]
    return (each for each in entries if type(each) is int and 0 <= each <= MAX_TOKEN_ID)


def _sampling(fields: dict[str, Any], problems: list[str]) -> dict[str, float]:
    """Return the usable fields. As in transformers, `do_sample` false means temperature 0."""
    values: dict[str, float] = {}
    for key in SAMPLING_KEYS.values():
        value = fields.get(key.name)
        if value is None:
            continue
        try:
            values[key.name] = cast("float", key.checked(value, key.name))
        except SettingsError:
            problems.append(f"{key.name} is not {key.expected}")
    match fields.get("do_sample"):
        case None | True:
            pass
        case False:
            values["temperature"] = 0.0
        case _:
            problems.append("do_sample is not true or false")
    return values
