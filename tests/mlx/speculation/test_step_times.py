"""Tests that steps are measured within a budget, over caches as a prompt leaves them, and kept."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pensieve.engine.disk.speculation_record import stored_state
from pensieve.engine.generation import NO_DRAFTS, NOT_MEASURED, SpeculationState
from pensieve.engine.model.cache_maker import CacheMaker
from pensieve.engine.planning.kv_precision import FULL, KVPrecision
from pensieve.engine.protocol import Load
from pensieve.engine.speculation.cost_curve import CurveKey
from pensieve.engine.worker.build import _measured_speculation, build_engine
from pensieve.engine.worker.drafting import speculation_of, step_curve
from pensieve.engine.worker.step_times import (
    CONTEXTS,
    LEAST_WIDTHS,
    LEAST_WIDTHS_WITH_HEAD,
    WIDTHS,
    StepTimer,
    is_complete,
    steps_of,
)
from tests.support import tiny_architectures, tiny_models
from tests.support.device import DEVICE


@dataclass
class Device:
    """Takes `seconds` for a step of a width, and `preparing_s` more for the first one."""

    seconds: dict[int, float]
    preparing_s: float = 0.0
    now_s: float = 0.0
    seen: list[int] = field(default_factory=list)

    def clock(self) -> float:
        return self.now_s

    def run(self, width: int) -> None:
        self.now_s += self.seconds[width] + self.preparing_s * (width not in self.seen)
        self.seen.append(width)


def test_every_width_is_timed_without_its_preparation_where_steps_are_fast() -> None:
    seconds = {width: 0.001 * width for width in WIDTHS}
    device = Device(seconds, preparing_s=0.02)
    curve = StepTimer(clock=device.clock).curve({256: device.run}, has_exact_widths=True)
    assert curve is not None
    assert curve.contexts[0].seconds == pytest.approx(seconds)
    assert curve.has_exact_widths
    assert is_complete(curve)


@pytest.mark.parametrize(("step_s", "longest_s"), [(0.2, 1.0), (0.35, 1.5)])
@pytest.mark.parametrize("least", [LEAST_WIDTHS, LEAST_WIDTHS_WITH_HEAD])
def test_slow_steps_stop_at_the_budget_after_the_least_widths(
    step_s: float, longest_s: float, least: tuple[int, ...]
) -> None:
    device = Device({width: step_s + 0.002 * width for width in WIDTHS})
    timer = StepTimer(1.0, 0.5 + step_s * (len(least) - 3), device.clock, least)
    curve = timer.curve({256: device.run}, has_exact_widths=False)
    longest_s += step_s * (len(least) - 3)
    assert curve is not None
    assert tuple(curve.contexts[0].seconds) == least
    assert not is_complete(curve)
    filling_s = step_s + 0.002
    assert device.now_s - filling_s < longest_s


def test_no_time_for_one_row_is_no_curve() -> None:
    device = Device(dict.fromkeys(WIDTHS, 1.0))
    timer = StepTimer(0.0, 0.0, device.clock)
    assert timer.curve({256: device.run}, has_exact_widths=False) is None
    assert device.seen == [1]


@pytest.mark.parametrize("precision", [FULL, KVPrecision(8, 32)])
def test_steps_run_over_any_precision_and_leave_the_context_as_it_was(
    precision: KVPrecision,
) -> None:
    make_caches = CacheMaker(tiny_architectures.build("llama"), True, precision)
    steps = steps_of(make_caches, 4000)
    assert list(steps) == [CONTEXTS[0]]
    for width in (32, 1, 32):
        steps[CONTEXTS[0]](width)
    assert list(steps_of(make_caches, 9000)) == list(CONTEXTS)


def test_curve_is_measured_once_for_a_key(tmp_path: Path) -> None:
    make_caches = CacheMaker(tiny_architectures.build("llama"), True)
    key = CurveKey("weights", "cpu", "1", 16)
    first = step_curve(make_caches, 1000, key, tmp_path)
    assert first is not None
    assert step_curve(make_caches, 1000, key, tmp_path) == first
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_bytes(b"{")
    again = step_curve(make_caches, 1000, key, tmp_path)
    assert again is not None
    assert again != first


def test_steps_of_state_spaces_leave_states_and_context_as_they_were() -> None:
    make_caches = CacheMaker(tiny_architectures.build("qwen3_next"), True)
    first = step_curve(make_caches, 1000, CurveKey("weights", "cpu", "1", 16), None)
    assert first is not None
    assert is_complete(first)


def test_missing_curve_is_no_speculation() -> None:
    assert speculation_of(None, 100) == (NOT_MEASURED, None)


@pytest.mark.parametrize("is_on", [False, True])
def test_loading_decides_on_drafts_and_stores_why_unless_the_setting_did(
    tmp_path: Path, is_on: bool
) -> None:
    folder = tiny_models.build("llama", tmp_path / "llama")
    context = build_engine(Load(str(folder), DEVICE, str(tmp_path), has_speculation=is_on))
    for close in (context.scheduler.close, context.grammar_queue.close, context.close):
        close()
    assert (context.speculation.reason != "setting") is is_on
    assert stored_state(tmp_path, folder) == (context.speculation if is_on else None)
    assert context.read_stats().drafts == NO_DRAFTS


def test_caches_that_cannot_be_rewound_are_the_reason_for_no_drafts(tmp_path: Path) -> None:
    make_caches = CacheMaker(tiny_architectures.build("gemma2"), is_ragged=False)
    key = CurveKey("weights", "cpu", "1", 16)
    decided = _measured_speculation(make_caches, key, tmp_path, StepTimer())
    assert decided == (SpeculationState("caches"), None)
    assert list(tmp_path.iterdir()) == []
