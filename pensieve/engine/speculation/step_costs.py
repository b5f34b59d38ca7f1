"""Prices of steps: the measured cost curve, corrected by the times of real steps.

Owned by a worker, since they hold for all its sequences. Machines slow down and speed up as a
whole, so what is corrected is the ratio of a wide step to a plain one, not seconds.
"""

from dataclasses import dataclass, field

from pensieve.engine.speculation.cost_curve import CostCurve
from pensieve.engine.speculation.draft_source import TILE_ROWS

# Plain steps timed before drafts are priced by them.
MIN_PLAIN_STEPS = 3
# A step that takes several times what is expected was held up by something else. A wide one counts
# less: it is one of few, and a sequence whose purse it empties has no drafts for a hundred tokens.
# (With 3 as for plain ones, simulated on a machine whose load changes, the worst of 12 rewrites
# was 1.8 instead of 3.1 times as fast, the median 3.6 instead of 3.9; 2026-11-30.)
MAX_SURPRISE = 3.0
MAX_WIDE_SURPRISE = 2.0
# A correction of a width that is not used halves in this many steps: a wrong one must not disable
# the width for good.
HALF_LIFE_STEPS = 2000
_PLAIN_WEIGHT = 0.1
_WIDE_WEIGHT = 0.25


@dataclass(slots=True)
class _Average:
    """Moving average: of all samples at first, then mainly of the newest."""

    value: float
    weight: float  # least weight of a sample
    samples: int = 0
    noted_at: int = 0  # step

    def note(self, sample: float, step: int) -> None:
        self.samples += 1
        weight = max(self.weight, 1 / self.samples)
        self.value += weight * (sample - self.value)
        self.noted_at = step


_Averages = dict[tuple[int, ...], _Average]


@dataclass(slots=True)
class StepCosts:
    curve: CostCurve
    head_s: float = 0.0  # of one draft of the MTP head, if there is one; as measured at load
    # By rows and context class.
    _plain_s: _Averages = field(default_factory=dict[tuple[int, ...], _Average])
    # By rows, plain rows and context class: eight rows of one sequence cost other than two of each
    # of four.
    _corrections: _Averages = field(default_factory=dict[tuple[int, ...], _Average])
    _head: _Average = field(default_factory=lambda: _Average(1.0, _WIDE_WEIGHT))  # correction
    _steps: int = 0
    _widest: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])

    def is_known(self, plain_rows: int, context_class: int) -> bool:
        """Return whether enough plain steps were timed to price wide ones."""
        plain = self._plain_s.get((plain_rows, context_class))
        return plain is not None and plain.samples >= MIN_PLAIN_STEPS

    def ratio(self, rows: int, plain_rows: int, context_class: int) -> float:
        """Return the expected time of a step of `rows`, relative to one of `plain_rows`."""
        if rows == plain_rows:
            return 1.0
        curve = self.curve.ratio(rows, plain_rows, context_class)
        return curve * self._correction(rows, plain_rows, context_class)

    def widest(self, rows: int, context_class: int) -> int:
        """Return the most rows, up to a tile, whose step takes no longer than one of `rows`.

        By the measured curve, so it is computed once: every plain step asks for it.
        """
        key = rows, context_class
        if key not in self._widest:
            self._widest[key] = self._find_widest(rows, context_class)
        return self._widest[key]

    def _find_widest(self, rows: int, context_class: int) -> int:
        usable = self.curve.usable_rows(context_class)
        times = {
            width: self.curve.ratio(width, 1, context_class)
            for width in usable
            if rows <= width <= TILE_ROWS
        }
        longest = times[min(times)] if times else 0.0
        return max((width for width, time in times.items() if time <= longest), default=rows)

    def note_plain(self, rows: int, context_class: int, seconds: float) -> None:
        self._steps += 1
        bounds = self.curve.contexts[context_class].bounds(rows)
        if bounds is None:
            return
        new = _Average(bounds[1], _PLAIN_WEIGHT)
        plain = self._plain_s.setdefault((rows, context_class), new)
        plain.note(_plausible(seconds, plain.value, MAX_SURPRISE), self._steps)

    def note_wide(self, rows: int, plain_rows: int, context_class: int, seconds: float) -> float:
        """Record the time of a step with drafts. Return it relative to a plain step."""
        self._steps += 1
        expected = self.ratio(rows, plain_rows, context_class)
        plain_s = self._plain_s[plain_rows, context_class].value
        ratio = _plausible(seconds / plain_s, expected, MAX_WIDE_SURPRISE)
        new = _Average(1.0, _WIDE_WEIGHT)
        correction = self._corrections.setdefault((rows, plain_rows, context_class), new)
        correction.value = self._correction(rows, plain_rows, context_class)
        correction.note(ratio / self.curve.ratio(rows, plain_rows, context_class), self._steps)
        return ratio

    def head_price(self, context_class: int) -> float:
        """Return the expected time of a draft of the MTP head, in plain steps of one row."""
        expected_s = self.head_s * self._faded(self._head)
        return expected_s / self._plain_s[1, context_class].value

    def note_head(self, context_class: int, seconds: float) -> float:
        """Record what a draft of the MTP head took. Return it in plain steps of one row."""
        self._head.value = self._faded(self._head)
        seconds = _plausible(seconds, self.head_s * self._head.value, MAX_WIDE_SURPRISE)
        self._head.note(seconds / self.head_s, self._steps)
        return seconds / self._plain_s[1, context_class].value

    def _correction(self, rows: int, plain_rows: int, context_class: int) -> float:
        correction = self._corrections.get((rows, plain_rows, context_class))
        return 1.0 if correction is None else self._faded(correction)

    def _faded(self, correction: _Average) -> float:
        age = self._steps - correction.noted_at
        return 1.0 + (correction.value - 1.0) * 0.5 ** (age / HALF_LIFE_STEPS)


def _plausible(value: float, expected: float, surprise: float) -> float:
    return min(max(value, expected / surprise), expected * surprise)
