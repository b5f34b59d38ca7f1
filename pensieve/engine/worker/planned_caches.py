# pyright: basic
"""Plans a loaded model's memory for the worker: its KV caches, and whether it sees pictures."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from pensieve.engine.long_operations import TRYING_S, Announce
from pensieve.engine.model.cache_maker import CacheMaker, supports_ragged_kv
from pensieve.engine.model.loading import set_memory_limit, set_wired_limit
from pensieve.engine.model.memory import plan_memory
from pensieve.engine.planning.memory_plan import GB, PROCESS_BYTES, MemoryPlan, agreed
from pensieve.engine.planning.tower_files import MIN_SEEING_TOKENS, sight_bytes
from pensieve.engine.protocol import Load
from pensieve.engine.worker.parts import WHOLE, EngineParts
from pensieve.settings.resolve import Device

_log = logging.getLogger("pensieve.engine")


def planned_caches(
    model: Any, load: Load, announce: Announce, head_bytes: int, parts: EngineParts
) -> tuple[CacheMaker, MemoryPlan, bool]:
    """Plan the memory, and set its limits for this process; return whether the model may see.

    It sees only if that leaves enough context. head_bytes: of its MTP head. Raises ValueError if no
    prompt fits: the server would refuse every request.
    """
    announce("trying the model", TRYING_S)
    is_ragged = bool(parts.least("ragged caches", supports_ragged_kv(model)))
    full = CacheMaker(model, is_ragged, ranks=parts.share.ranks)
    announce("planning its memory", TRYING_S)
    # One rank's part of a model takes no pictures.
    may_see = load.has_pictures and parts.share == WHOLE and is_ragged
    seen_bytes = sight_bytes(Path(load.model_folder)) if may_see else 0
    plan = _plan(full, load, seen_bytes + head_bytes, parts)
    if seen_bytes and plan.context_tokens < MIN_SEEING_TOKENS:
        blind = _plan(full, load, head_bytes, parts)
        if blind.context_tokens > plan.context_tokens:
            _log.warning(
                "pictures are refused: the memory for them would leave %d of %d tokens of context",
                plan.context_tokens,
                blind.context_tokens,
            )
            plan, seen_bytes = blind, 0
    _check(plan, load)
    _limit_memory(plan, load)
    caches = replace(full, precision=plan.precision, max_tokens=plan.context_tokens)
    return caches, plan, seen_bytes > 0


def _plan(make_caches: CacheMaker, load: Load, more_bytes: int, parts: EngineParts) -> MemoryPlan:
    config = json.loads((Path(load.model_folder) / "config.json").read_text(encoding="utf-8"))
    device = cast("Device", load.device)

    def plan_for(kv_bits: Any) -> MemoryPlan:
        limits = replace(load.limits, kv_bits=kv_bits)
        return plan_memory(make_caches, device, limits, config, more_bytes)

    return agreed(plan_for, load.limits.kv_bits, parts.least)


def _check(plan: MemoryPlan, load: Load) -> None:
    if plan.context_tokens:
        return
    engines = load.limits.engines
    user, fewer = (
        (f"each of {engines} workers", "fewer workers, or ") if engines > 1 else ("pensieve", "")
    )
    raise ValueError(
        f"its weights take {plan.weights_bytes / GB:.1f} of the {plan.limit_bytes / GB:.1f} GB that"
        f" {user} may use, which leaves no memory for a prompt. Choose {fewer}a smaller model"
        " (pensieve models), or allow more memory (pensieve config set memory_gb N)"
    )


def _limit_memory(plan: MemoryPlan, load: Load) -> None:
    set_memory_limit(plan.limit_bytes - PROCESS_BYTES)
    if load.limits.is_wired:
        set_wired_limit(plan.limit_bytes)
