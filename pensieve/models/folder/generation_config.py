"""A model folder's generation_config.json: how its makers sample it, which tokens end its answer.

The file is never necessary: what cannot be used in it is left out, with a complaint.
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
# No vocabulary has more; the engine's arrays hold no more.
MAX_TOKEN_ID = 2**31 - 1


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """What could be read. complaints: what was left out, and why."""

    sampling: SamplingDefaults = NEUTRAL
    stop_tokens: tuple[int, ...] = ()
    complaints: tuple[str, ...] = ()

    def with_settings(self, settings: Settings) -> "GenerationConfig":
        """What holds in a server with `settings`, whose values come first."""
        return replace(self, sampling=self.sampling.updated(settings.sampling, "setting"))


def read_generation_config(folder: Path) -> GenerationConfig:
    """What the file in `folder` says; nothing where there is none. Never raises."""
    try:
        found = read_json(read_file(folder / NAME))
    except FileNotFoundError:
        return GenerationConfig()
    except OSError as error:
        return GenerationConfig(complaints=(f"it cannot be read ({error.strerror})",))
    except ValueError:
        return GenerationConfig(complaints=("it is not JSON",))
    if not isinstance(found, dict):
        return GenerationConfig(complaints=("it is not a JSON object",))
    stated = cast("dict[str, Any]", found)
    complaints: list[str] = []
    values = _sampling(stated, complaints)
    return GenerationConfig(
        NEUTRAL.updated(values, NAME),
        tuple(token_ids(stated.get("eos_token_id"))),
        tuple(complaints),
    )


def token_ids(stated: object) -> Iterable[int]:
    """The ids in a field that holds one, a list of them, or anything else."""
    listed = cast("list[object]", stated) if isinstance(stated, list) else [stated]
    return (each for each in listed if type(each) is int and 0 <= each <= MAX_TOKEN_ID)


def _sampling(stated: dict[str, Any], complaints: list[str]) -> dict[str, float]:
    """The usable fields. As in transformers, `do_sample` false is greedy: a temperature of 0."""
    values: dict[str, float] = {}
    for key in SAMPLING_KEYS.values():
        value = stated.get(key.name)
        if value is None:
            continue
        try:
            values[key.name] = cast("float", key.checked(value, key.name))
        except SettingsError:
            complaints.append(f"{key.name} is not {key.expected}")
    match stated.get("do_sample"):
        case None | True:
            pass
        case False:
            values["temperature"] = 0.0
        case _:
            complaints.append("do_sample is not true or false")
    return values
