"""`pensieve plan`: how much context a model gets on this machine, or on another, before anything is loaded."""

from typing import Annotated

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from pensieve import settings as settings_module
from pensieve.cli import output
from pensieve.engine.budget import (
    ENOUGH_CONTEXT_TOKENS,
    GB,
    AttentionShape,
    KVBudget,
    kv_room,
    limit_bytes,
    mac_working_set,
    precisions,
)
from pensieve.engine.precision import KVPrecision
from pensieve.errors import ModelUnavailableError
from pensieve.machine import inspect
from pensieve.models.shape import PHI_3_MINI_SHAPE, ModelShape

GIB = 2**30


def plan(
    *,
    model: Annotated[str | None, Parameter(metavar="NAME")] = None,
    ram: Annotated[PositiveInt | None, Parameter(metavar="GB")] = None,
) -> int:
    """Show how much context fits into memory, by the precision of the KV cache.

    For example:
      pensieve plan
      pensieve plan --model smollm2-135m --ram 8

    Parameters
    ----------
    model
        The model to plan for; the one that `start` would take unless given.
    ram
        Plan for a Mac with so many gigabytes instead of this machine.
    """
    settings = settings_module.resolve(settings_module.Flags(model=model))
    shape = _shape(settings)
    memory_bytes = ram * GIB if ram else inspect().memory_bytes
    output.data(f"{settings.model} with {memory_bytes / GIB:.0f} GB of memory")
    output.data(rendered(shape, limit_bytes(memory_bytes, mac_working_set(memory_bytes))))
    return 0


def rendered(shape: ModelShape, limit: int) -> str:
    """The plan as text. limit: bytes that pensieve may use in all."""
    room = kv_room(limit, shape.weights_bytes)
    rows = [
        f"  for pensieve in all   {limit / GB:6.1f} GB",
        f"  weights               {shape.weights_bytes / GB:6.1f} GB",
        f"  KV caches             {room / GB:6.1f} GB",
        "",
        "  KV cache     KiB a token    context",
    ]
    chosen = choice(shape, room)
    for precision in precisions(shape.head_dim):
        budget = _budget(shape, precision, room)
        mark = "  <- chosen" if precision == chosen else ""
        context = min(budget.context_tokens, shape.context_tokens)
        rows.append(
            f"  {_name(precision):<10} {budget.bytes_per_token / 1024:13.1f} {context:10,}{mark}"
        )
    return "\n".join(rows)


def choice(shape: ModelShape, room: int) -> KVPrecision:
    """What the engine takes: full precision where it holds enough, else 8 bits."""
    full, eight, _ = precisions(shape.head_dim)
    enough = min(ENOUGH_CONTEXT_TOKENS, shape.context_tokens)
    return full if _budget(shape, full, room).context_tokens >= enough else eight


def _budget(shape: ModelShape, precision: KVPrecision, room: int) -> KVBudget:
    attention = AttentionShape(shape.layers, shape.kv_heads, shape.head_dim)
    return KVBudget(room, attention.bytes_per_token(precision))


def _name(precision: KVPrecision) -> str:
    return f"{precision.bits}-bit" if precision.bits else "full"


def _shape(settings: settings_module.Settings) -> ModelShape:
    from pensieve.models.catalog import PHI_3_MINI, find
    from pensieve.models.fetch import is_present
    from pensieve.models.folder import folder_of
    from pensieve.models.shape import shape_of

    source = find(settings.model)
    if is_present(source, settings.paths):
        return shape_of(folder_of(source, settings.paths.models))
    if source == PHI_3_MINI:
        return PHI_3_MINI_SHAPE
    raise ModelUnavailableError(
        f"{settings.model} is not on this machine yet, so its shape is not known.",
        hint=f"Fetch it by starting it once:\n  pensieve start --model {settings.model}",
    )
