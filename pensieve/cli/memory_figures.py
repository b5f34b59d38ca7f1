"""A memory plan as text and as JSON: context by KV precision, and the verdict.

Called by `plan` and `show`.
"""

from pensieve.cli.ui.progress import in_bytes
from pensieve.engine.planning.kv_precision import KVPrecision
from pensieve.engine.planning.memory_plan import choices
from pensieve.models.catalog.memory_fit import (
    FitEstimate,
    MemoryLimit,
    estimate_fit,
    estimate_fit_at,
)
from pensieve.models.catalog.recommend import fitting
from pensieve.models.folder.config_shape import ModelShape

GIB = 2**30
MAX_SUGGESTIONS = 4


def format_plan(shape: ModelShape, limit: MemoryLimit) -> str:
    best = estimate_fit(shape, limit)
    rows = [
        f"  memory limit          {in_bytes(limit.limit_bytes):>9}",
        f"  weights               {in_bytes(best.weights_bytes):>9}",
        *([f"  pictures              {in_bytes(best.sight_bytes):>9}"] if best.sight_bytes else []),
        f"  working memory        {in_bytes(best.working_bytes):>9}",
        f"  KV caches             {in_bytes(best.kv_bytes):>9}",
        "",
        "  KV cache     KiB a token    context",
    ]
    for precision in choices(shape.facts()):
        fit = estimate_fit_at(shape, limit, precision)
        is_chosen = fit.context_tokens and precision.bits == best.precision.bits
        mark = "  <- chosen" if is_chosen else ""
        rows.append(
            f"  {_name(precision):<10} {fit.token_bytes / 1024:13.1f}"
            f" {fit.context_tokens:10,}{mark}"
        )
    ending = [verdict(shape, best)] if best.context_tokens else _alternatives(shape, limit)
    return "\n".join([*rows, "", *(f"  {line}" for line in ending)])


def _alternatives(shape: ModelShape, limit: MemoryLimit) -> list[str]:
    """Return why nothing fits, and which precision or model would."""
    best = estimate_fit(shape, limit)
    lines = [
        f"It does not fit: with a usable context it needs {in_bytes(best.needs_bytes)}.",
    ]
    fitting_at = [
        fit
        for each in choices(shape.facts())
        if (fit := estimate_fit_at(shape, limit, each)).context_tokens
    ]
    if fitting_at:
        longest = max(fitting_at, key=lambda fit: fit.context_tokens)
        bits = longest.precision.bits or 16
        lines.append(
            f"{_name(longest.precision)} holds {longest.context_tokens:,} tokens:"
            f" pensieve config set kv_bits {bits}"
        )
    names = ", ".join(card.model.name for card in fitting(limit)[:MAX_SUGGESTIONS])
    return [*lines, f"What fits: {names}." if names else "No model of `pensieve models` fits."]


def plan_json(shape: ModelShape, limit: MemoryLimit) -> dict[str, object]:
    best = estimate_fit(shape, limit)
    return {
        "limit_bytes": limit.limit_bytes,
        "weights_bytes": best.weights_bytes,
        "pictures_bytes": best.sight_bytes,
        "working_bytes": best.working_bytes,
        "kv_bytes": best.kv_bytes,
        "kv_bits": best.precision.bits,
        "kv_reason": best.reason,
        "context_tokens": best.context_tokens,
        "model_context_tokens": shape.context_tokens,
        "needs_bytes": best.needs_bytes,
    }


def verdict(shape: ModelShape, best: FitEstimate) -> str:
    if not best.context_tokens:
        return "It does not fit. List smaller models: pensieve models"
    context = f"{best.context_tokens:,} tokens of context"
    if best.precision.bits:
        return f"{context}, {best.reason}."
    whole = ", the model's maximum" if best.context_tokens == shape.context_tokens else ""
    return f"{context} in full precision{whole}."


def _name(precision: KVPrecision) -> str:
    return f"{precision.bits}-bit" if precision.bits else "full"
