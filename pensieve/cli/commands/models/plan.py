"""`pensieve plan`: shows the context a model gets on this machine or another, loading nothing."""

from dataclasses import replace
from json import dumps
from typing import Annotated, Literal

from cyclopts import Parameter

from pensieve.cli.lifecycle.start_options import Allowed, allowed_by_setting, whole_number
from pensieve.cli.memory_figures import GIB, format_plan, plan_json
from pensieve.cli.ui import output
from pensieve.machine import inspect
from pensieve.models.catalog.expected_model import shape_by_source
from pensieve.models.catalog.find import find
from pensieve.models.catalog.memory_fit import (
    MemoryLimit,
    estimate_fit,
    memory_limit_here,
    memory_limit_of_mac,
)
from pensieve.models.catalog.recommend import resolve_auto_on
from pensieve.models.catalog.sources import AUTO_NAMES
from pensieve.models.fetching.fetch import check_here
from pensieve.models.folder.config_shape import ModelShape
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import Settings

# Too slow for a dense 27B, but sold with the memory for one.
SLOW_CHIP = "Apple M4 Pro"

ModelToPlan = Annotated[
    Literal["auto", "auto:fast"] | str | None,
    Parameter(metavar="NAME", show_choices=False, validator=allowed_by_setting("model")),
]
# More than any Mac has.
MAX_RAM_GB = 65_536
Ram = Annotated[
    int | None,
    Parameter(
        metavar="GB",
        converter=whole_number,
        validator=Allowed(
            f"a whole number of GB from 1 to {MAX_RAM_GB}, such as 16",
            range(1, MAX_RAM_GB + 1).__contains__,
        ),
    ),
]


def plan(
    *,
    model: ModelToPlan = None,
    ram: Ram = None,
    json: bool = False,
) -> int:
    """Show how much context fits into memory, by KV cache precision.

    For example:
      pensieve plan
      pensieve plan --model qwen3.5-9b       # before its download
      pensieve plan --model phi-3-mini --ram 8
      pensieve plan --model auto --ram 32    # the best for a Mac with 32 GB

    Parameters
    ----------
    model
        Plan for this model, auto or auto:fast; by default the one that `start` takes.
    ram
        Plan for a Mac with this many gigabytes instead of this machine.
    json
        Print one JSON object instead.
    """
    settings = settings_module.resolve(settings_module.Flags(model=model))
    memory_bytes = ram * GIB if ram else inspect().memory_bytes
    limit = _limit_of_mac(ram, settings) if ram else memory_limit_here(inspect(), settings)
    is_other_mac = bool(ram) and settings.model in AUTO_NAMES
    source = resolve_auto_on(limit, settings.model) if is_other_mac else find(settings.model)
    check_here(source, settings.paths)
    shape = shape_by_source(source, settings)
    name = source.name if settings.model in AUTO_NAMES else settings.model
    if json:
        result = {"model": name, "memory_bytes": memory_bytes, **plan_json(shape, limit)}
        output.data(dumps(result, indent=2))
        return 0
    output.data(f"{name} with {memory_bytes / GIB:.0f} GB of memory")
    output.data(format_plan(shape, limit))
    if shape.sight_bytes:
        output.data(f"  {_pictures(shape, limit, settings)}")
    if is_other_mac and (slower := resolve_auto_on(limit, settings.model, SLOW_CHIP)) != source:
        output.data(f"  On a chip with less memory bandwidth, such as {SLOW_CHIP}: {slower.name}")
    return 0


def _pictures(shape: ModelShape, limit: MemoryLimit, settings: Settings) -> str:
    if estimate_fit(shape, limit).sight_bytes:
        return f"A picture takes at most {settings.picture_tokens:,} tokens of it (picture_tokens)."
    return "Pictures are refused: too little context would be left."


def _limit_of_mac(ram: int, settings: Settings) -> MemoryLimit:
    return replace(memory_limit_of_mac(ram * GIB), kv_bits=settings.kv_bits)
