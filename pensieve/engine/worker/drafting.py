"""Decides when a model is loaded whether drafts pay, by step times measured now or before."""

import json
import logging
from functools import partial
from hashlib import blake2b
from pathlib import Path

from pensieve.atomic_files import write_atomically
from pensieve.engine.generation import SpeculationState
from pensieve.engine.model.cache_maker import CacheMaker
from pensieve.engine.model.mtp.head import MtpHead
from pensieve.engine.speculation.cost_curve import (
    CostCurve,
    CurveKey,
    cache_record,
    cached_curve,
)
from pensieve.engine.speculation.drafter import Speculation, lookup_drafter
from pensieve.engine.speculation.policy import SpeculationPolicy
from pensieve.engine.worker.step_times import (
    StepTimer,
    is_complete,
    steps_of,
)
from pensieve.private_files import read_private
from pensieve.untrusted_json import read_json

_log = logging.getLogger("pensieve.engine")

_MAX_BYTES = 64 * 1024


def speculation_of(
    curve: CostCurve | None,
    vocabulary: int,
    head: MtpHead | None = None,
    head_s: float | None = None,
) -> tuple[SpeculationState, Speculation | None]:
    """Return whether drafts can pay, and what they need then.

    head_s: of a draft of the head; None without one.
    """
    policy = SpeculationPolicy(curve, head_s)
    state = policy.assessment
    if not state.is_on:
        return state, None
    drafter_of = partial(lookup_drafter, vocabulary)
    return state, Speculation(policy, drafter_of, head if state.has_head else None)


def step_curve(
    make_caches: CacheMaker,
    max_tokens: int,
    key: CurveKey,
    folder: Path | None,
    timer: StepTimer = StepTimer(),  # noqa: B008 - a frozen value
) -> CostCurve | None:
    """Return the step times of this model on this device; measured once if there is a folder."""
    file = folder / f"step-times-{_digest(key)}.json" if folder else None
    if file and (curve := _stored(file, key)):
        return curve
    # Only CUDA compiles its kernels by width.
    is_exact = key.device == "cuda"
    curve = timer.curve(steps_of(make_caches, max_tokens), has_exact_widths=is_exact)
    if file and curve and is_complete(curve):
        _store(file, key, curve)
    return curve


def _digest(key: CurveKey) -> str:
    return blake2b(repr(key).encode(), digest_size=8).hexdigest()


def _stored(file: Path, key: CurveKey) -> CostCurve | None:
    try:
        return cached_curve(read_json(read_private(file, _MAX_BYTES), max_bytes=_MAX_BYTES), key)
    except (OSError, ValueError):
        return None


def _store(file: Path, key: CurveKey, curve: CostCurve) -> None:
    try:
        write_atomically(file, json.dumps(cache_record(key, curve)).encode())
    except OSError as error:
        _log.warning("storing step times failed, the next start measures them again: %s", error)
