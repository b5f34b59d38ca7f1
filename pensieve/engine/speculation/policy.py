"""How many drafts of each sequence a decode step verifies.

Two widths pay: a few drafts, which share one read of the weights ("near"), and all that one tile of
the device's matrix product takes ("far"). Every sequence of the batch waits for a wide step, so its
price is in plain steps of all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from pensieve.engine.generation import NOT_MEASURED, SpeculationState
from pensieve.engine.speculation.cost_curve import CostCurve
from pensieve.engine.speculation.draft_source import NO_DRAFT, TILE_ROWS, Draft
from pensieve.engine.speculation.lookup_index import MAX_MATCH
from pensieve.engine.speculation.row_ledger import RowLedger
from pensieve.engine.speculation.step_costs import StepCosts

NEAR_DRAFTS = 3
# A far draft follows this many accepted drafts in a row, or a match of the largest length.
_FAR_RUN = 8
# Least speed-up, with all drafts accepted, of a width that can pay: some are always refused.
_MIN_SPEEDUP = 1.25


def assess(curve: CostCurve | None) -> SpeculationState:
    """Return whether drafts can pay."""
    speedups = _speedups(curve) if curve is not None else []
    if not speedups:
        return NOT_MEASURED
    speedup, rows, ratio = max(speedups)
    reason = "pays" if speedup >= _MIN_SPEEDUP else "no_width_pays"
    return SpeculationState(reason, rows, round(ratio, 2))


def head_can_pay(curve: CostCurve | None, head_s: float | None) -> bool:
    """Whether drafts of an MTP head can pay: one more row, and `head_s` for the draft itself."""
    if curve is None or head_s is None or not assess(curve).is_on:
        return False
    return any(
        2 / (curve.ratio(2, 1, at) + head_s / costs.seconds[1]) >= _MIN_SPEEDUP
        for at, costs in enumerate(curve.contexts)
        if curve.is_usable(2, at)
    )


def _speedups(curve: CostCurve) -> list[tuple[float, int, float]]:
    """Return the speed-up if all drafts are accepted, the rows and the ratio of each wide step."""
    return [
        (rows / (ratio := curve.ratio(rows, 1, context_class)), rows, ratio)
        for context_class in range(len(curve.contexts))
        for rows in curve.usable_rows(context_class)
        if 1 < rows <= TILE_ROWS
    ]


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence of a step."""

    ledger: RowLedger
    draft: Draft = NO_DRAFT  # proposed, for `plan`; its fed part, for `settle`
    accepted: int = 0  # drafts
    # Tokens fed once more before the drafts: state-space layers forgot them with refused ones.
    again: int = 0
    is_fed_again: bool = False  # after refused drafts, the tokens of a step that stay

    @property
    def may_draft(self) -> bool:
        return bool(len(self.draft)) and self.ledger.purse > 0

    def price(self, price: float, chance: float) -> float:
        """Return the price of drafts, all of which are accepted with this chance.

        What is fed again after a refusal costs as much as the drafts did, at most.
        """
        return price * (2.0 - chance) if self.is_fed_again else price


@dataclass(frozen=True, slots=True)
class StepPlan:
    drafts: tuple[int, ...]  # of each sequence
    context_class: int = 0
    again: int = 0  # tokens of all sequences that are fed once more
    gain: float = 0.0  # expected of the drafts, in tokens
    head_s: float = 0.0  # that the MTP head took for the draft; 0: it was not asked


@dataclass(frozen=True, slots=True)
class _Step:
    """Prices of one step, in tokens of the whole batch."""

    costs: StepCosts
    sequences: int
    context_class: int
    again: int = 0  # rows that the step has without drafts, next to one of each sequence

    @property
    def has_prices(self) -> bool:
        return self._has_price(self.again)

    @property
    def near_drafts(self) -> int:
        """Return how many drafts of a sequence count as few.

        More than `NEAR_DRAFTS` where a step with more rows takes no longer: on CUDA 8 take less
        time than 4.
        """
        widest = self.costs.widest(self.sequences + NEAR_DRAFTS, self.context_class)
        return max(NEAR_DRAFTS, widest // self.sequences - 1)

    def can_add(self, drafts: int) -> bool:
        rows = self.sequences + self.again + drafts
        return self.costs.curve.is_usable(rows, self.context_class)

    def price(self, drafts: int) -> float:
        return self._price_of(self.again + drafts) - self._price_of(self.again)

    def note(self, drafts: int, seconds: float | None) -> float:
        """Record the step's time. Return what each draft and each token fed again cost."""
        more = self.again + drafts
        if not more:
            if seconds is not None:
                self.costs.note_plain(self.sequences, self.context_class, seconds)
            return 0.0
        if not self._has_price(more):
            return 0.0
        if seconds is None:
            return self._price_of(more) / more
        rows = self.sequences + more
        ratio = self.costs.note_wide(rows, self.sequences, self.context_class, seconds)
        return self.sequences * (ratio - 1.0) / more

    def _has_price(self, more: int) -> bool:
        costs = self.costs.curve.contexts[self.context_class]
        is_measured = costs.bounds(self.sequences + more) is not None
        return is_measured and self.costs.is_known(self.sequences, self.context_class)

    def _price_of(self, more: int) -> float:
        rows = self.sequences + more
        ratio = self.costs.ratio(rows, self.sequences, self.context_class)
        return self.sequences * (ratio - 1.0)


class Policy(Protocol):
    """What a batch needs of `SpeculationPolicy`."""

    def plan(self, rows: Sequence[Row], context_tokens: int) -> StepPlan: ...

    def prefers_head(self, plan: StepPlan, row: Row) -> bool: ...

    def settle(self, plan: StepPlan, rows: Sequence[Row], seconds: float | None) -> None: ...


class SpeculationPolicy:
    """Owned by a worker; each sequence has a `RowLedger` of its own."""

    def __init__(self, curve: CostCurve | None, head_s: float | None = None) -> None:
        """head_s: of a draft of the model's MTP head; None: it has none."""
        self.assessment = replace(assess(curve), has_head=head_can_pay(curve, head_s))
        self._costs = StepCosts(curve, head_s or 0.0) if curve is not None else None

    def plan(self, rows: Sequence[Row], context_tokens: int) -> StepPlan:
        """Return how many drafts of each sequence to feed.

        rows: all sequences of the step; their drafts are valid for the grammar and the answer's
        length. context_tokens: in the KV cache, of all of them together.
        """
        nothing = (0,) * len(rows)
        if self._costs is None:
            return StepPlan(nothing)
        context_class = self._costs.curve.context_class(context_tokens)
        again = sum(row.again for row in rows)
        step = _Step(self._costs, len(rows), context_class, again)
        may_draft = self.assessment.is_on and any(row.may_draft for row in rows)
        widths, gain = _widths(rows, step) if may_draft else (nothing, 0.0)
        return StepPlan(widths, context_class, again, gain)

    def prefers_head(self, plan: StepPlan, row: Row) -> bool:
        """Whether a draft of the MTP head is worth more than the planned ones of a lone sequence.

        The head computes it first, so its time is part of the price.
        """
        if self._costs is None or not self.assessment.has_head or row.ledger.purse <= 0:
            return False
        step = _Step(self._costs, 1, plan.context_class, row.again)
        if not step.has_prices or not step.can_add(1):
            return False
        chance, head = row.ledger.head_chance, self._costs.head_price(plan.context_class)
        return chance - row.price(step.price(1), chance) - head > plan.gain

    def settle(self, plan: StepPlan, rows: Sequence[Row], seconds: float | None) -> None:
        """Account for a step with exactly the planned drafts.

        rows: those of `plan`; a cancelled one may be missing. seconds: since the end of the step
        before it; None if the device did something else in that time.
        """
        if self._costs is None:
            return
        sequences = len(plan.drafts)
        step = _Step(self._costs, sequences, plan.context_class, plan.again)
        head = self._costs.note_head(plan.context_class, plan.head_s) if plan.head_s else 0.0
        pass_s = None if seconds is None else seconds - plan.head_s
        price = step.note(sum(plan.drafts), pass_s)
        for row in rows:
            _settle_row(row, price * (len(row.draft) + row.again) + head, step)


def _widths(rows: Sequence[Row], step: _Step) -> tuple[tuple[int, ...], float]:
    """Return each sequence's drafts with the largest gain, and their gain together."""
    if not step.has_prices:
        return (0,) * len(rows), 0.0
    near, near_gain = _near(rows, step)
    far, far_gain = _far(rows, step)
    return (far, far_gain) if far_gain > near_gain else (near, near_gain)


def _near(rows: Sequence[Row], step: _Step) -> tuple[tuple[int, ...], float]:
    """Return each sequence's few drafts with the largest gain, and their gain together."""
    widths: list[int] = []
    total = 0.0
    for row in rows:
        width, gain = _near_width(row, step, sum(widths)) if row.may_draft else (0, 0.0)
        widths.append(width)
        total += gain
    return tuple(widths), total


def _near_width(row: Row, step: _Step, others: int) -> tuple[int, float]:
    """Return a number of drafts next to `others` of other sequences, and its gain."""
    expected = row.ledger.expected_tokens(row.draft)
    longest = min(len(row.draft), max(step.near_drafts, row.draft.certain_tokens))
    before = step.price(others)
    best, width = 0.0, 0
    for drafts in range(1, longest + 1):
        if step.can_add(others + drafts):
            price = step.price(others + drafts) - before
            chance = expected[drafts] - expected[drafts - 1]
            gain = expected[drafts] - row.price(price, chance)
            if gain > best:
                best, width = gain, drafts
    return width, best


def _far(rows: Sequence[Row], step: _Step) -> tuple[tuple[int, ...], float]:
    """Return the best far draft of one sequence, without drafts of the others, and its gain."""
    nothing = (0,) * len(rows)
    best = (nothing, 0.0)
    for at, row in enumerate(rows):
        width = _far_width(row, step) if row.may_draft else 0
        if not width:
            continue
        expected = min(row.ledger.far_tokens, width)
        gain = expected - row.price(step.price(width), expected / width)
        if gain > best[1]:
            best = ((*nothing[:at], width, *nothing[at + 1 :]), gain)
    return best


def _far_width(row: Row, step: _Step) -> int:
    if row.ledger.run < _FAR_RUN and row.draft.match_length < MAX_MATCH:
        return 0
    longest = min(len(row.draft), TILE_ROWS - step.sequences - step.again)
    usable = (drafts for drafts in range(longest, step.near_drafts, -1) if step.can_add(drafts))
    return next(usable, 0)


def _settle_row(row: Row, price: float, step: _Step) -> None:
    is_far = len(row.draft) - row.draft.certain_tokens > step.near_drafts
    row.ledger.note(row.draft, row.accepted, is_far=is_far)
    if not is_far:
        row.ledger.note_run(TILE_ROWS - step.sequences)
    row.ledger.settle(row.accepted + 1, row.accepted, price)
