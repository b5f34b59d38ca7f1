"""How many drafts are fed, and that they cost 2 % and one step at most."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pensieve.engine.generation import NOT_MEASURED, SpeculationState
from pensieve.engine.speculation.cost_curve import ContextCosts, CostCurve
from pensieve.engine.speculation.draft_source import FAR_DRAFTS, NO_DRAFT, Draft, Proposal
from pensieve.engine.speculation.policy import (
    NEAR_DRAFTS,
    TILE_ROWS,
    Row,
    SpeculationPolicy,
    StepPlan,
    assess,
)
from pensieve.engine.speculation.row_ledger import PURSE_PER_TOKEN, PURSE_START, RowLedger
from pensieve.engine.speculation.step_costs import MIN_PLAIN_STEPS

CONTEXT = 1000
# As Apple's M3 and M4: 4-bit weights, mlx pull requests 3852 and 3863.
M3 = {1: 1.0, 2: 1.0, 3: 1.13, 4: 1.35, 5: 1.75, 6: 2.04, 8: 2.65, 10: 4.2, 32: 4.25}
M1 = {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0, 5: 5.0, 32: 5.0}
CPU_4_BIT = {1: 1.0, 2: 1.87, 3: 2.75, 4: 3.66, 6: 5.46, 8: 7.12, 16: 14.1}


def curve_of(*seconds: dict[int, float]) -> CostCurve:
    return CostCurve(tuple(ContextCosts(CONTEXT * 16**at, one) for at, one in enumerate(seconds)))


def looked_up(tokens: int, match_length: int = 4) -> Draft:
    return Draft((Proposal("lookup", (0,) * tokens, match_length),)) if tokens else NO_DRAFT


def forced(tokens: int) -> Proposal:
    return Proposal("grammar", (0,) * tokens, is_certain=True)


@dataclass
class Decoder:
    """Feeds a policy with steps that take what `seconds` says."""

    policy: SpeculationPolicy
    seconds: dict[int, float]
    ledgers: list[RowLedger]
    context_tokens: int = CONTEXT
    is_fed_again: bool = False  # what stays of a step with refused drafts
    again: int = 0  # tokens that the next step feeds once more

    @classmethod
    def of(
        cls, curve: CostCurve, sequences: int = 1, seconds: dict[int, float] | None = None
    ) -> "Decoder":
        policy = SpeculationPolicy(curve)
        ledgers = [RowLedger() for _ in range(sequences)]
        return cls(policy, seconds or dict(curve.contexts[0].seconds), ledgers)

    def warmed(self) -> "Decoder":
        for _ in range(MIN_PLAIN_STEPS):
            self.step([NO_DRAFT] * len(self.ledgers), [0] * len(self.ledgers))
        return self

    def plan(self, *drafts: Draft) -> tuple[int, ...]:
        return self._plan(drafts).drafts

    def _plan(self, drafts: Sequence[Draft]) -> StepPlan:
        pairs = zip(self.ledgers, drafts, strict=True)
        rows = [Row(*pair, 0, self.again, self.is_fed_again) for pair in pairs]
        return self.policy.plan(rows, self.context_tokens)

    def step(self, drafts: Sequence[Draft], right: Sequence[int]) -> list[Row]:
        """Decode once. right: how many drafts of each sequence are right, at most."""
        plan = self._plan(drafts)
        rows = [
            Row(ledger, draft.first(width), min(width, count), self.again, self.is_fed_again)
            for ledger, draft, width, count in zip(
                self.ledgers, drafts, plan.drafts, right, strict=True
            )
        ]
        self.policy.settle(plan, rows, self.time(self.again + sum(plan.drafts)))
        for row in rows if self.is_fed_again else ():
            is_refused = row.accepted < len(row.draft)
            self.again = self.again + 1 + row.accepted if is_refused else 0
        return rows

    def time(self, drafts: int) -> float:
        rows = len(self.ledgers) + drafts
        return self.seconds[min(width for width in self.seconds if width >= rows)]


# What drafts may cost.

MAX_ROWS = 36
true_times = st.lists(st.floats(0.5, 12.0), min_size=MAX_ROWS, max_size=MAX_ROWS)
errors = st.lists(st.floats(0.6, 1.7), min_size=MAX_ROWS, max_size=MAX_ROWS)
proposals = st.builds(
    lambda length, match, certain: Draft(
        (*([forced(certain)] if certain else []), *looked_up(length, match).proposals)
    ),
    st.integers(0, 31),
    st.integers(2, 32),
    st.sampled_from([0, 0, 0, 2, 6]),
)
# Some are never right, some always, some up to a point.
steps = st.tuples(proposals, st.sampled_from([0, 0, 1, 2, 3, 10, 99]))


@given(
    times=true_times,
    errors=errors,
    sequences=st.integers(1, 4),
    script=st.lists(steps, min_size=1, max_size=12),
    repeats=st.integers(1, 20),
)
@settings(max_examples=120)
def test_drafts_cost_two_percent_and_one_step_at_most(
    times: list[float],
    errors: list[float],
    sequences: int,
    script: list[tuple[Draft, int]],
    repeats: int,
) -> None:
    """Whatever is accepted, whatever steps take, and if the curve is wrong up to threefold."""
    seconds = dict(enumerate(times, 1))
    curve = curve_of({rows: time * errors[rows - 1] for rows, time in seconds.items()})
    decoder = Decoder.of(curve, sequences, seconds).warmed()
    assume(decoder.policy.assessment.is_on)
    tokens = [float(MIN_PLAIN_STEPS)] * sequences
    losses, widest = [0.0] * sequences, [0.0] * sequences
    for at in range(repeats * len(script)):
        turns = [script[(at + 5 * row) % len(script)] for row in range(sequences)]
        rows = decoder.step([draft for draft, _ in turns], [right for _, right in turns])
        drafts = sum(len(row.draft) for row in rows)
        delay = sequences * (decoder.time(drafts) / decoder.time(0) - 1.0)
        for which, row in enumerate(rows):
            share = delay * len(row.draft) / drafts if drafts else 0.0
            tokens[which] += 1 + row.accepted
            losses[which] += share - row.accepted
            widest[which] = max(widest[which], PURSE_START + share)
            limit = PURSE_PER_TOKEN * tokens[which] + widest[which]
            assert losses[which] <= limit + 1e-6


@given(
    times=true_times,
    errors=errors,
    script=st.lists(steps, min_size=1, max_size=12),
    repeats=st.integers(1, 20),
)
@settings(max_examples=120)
def test_drafts_and_what_they_feed_again_cost_two_percent_and_two_steps_at_most(
    times: list[float], errors: list[float], script: list[tuple[Draft, int]], repeats: int
) -> None:
    seconds = dict(enumerate(times, 1))
    curve = curve_of({rows: time * errors[rows - 1] for rows, time in seconds.items()})
    decoder = Decoder.of(curve, 1, seconds).warmed()
    decoder.is_fed_again = True
    assume(decoder.policy.assessment.is_on)
    tokens, loss, widest = float(MIN_PLAIN_STEPS), 0.0, 0.0
    for draft, right in script * repeats:
        (row,) = decoder.step([draft], [right])
        delay = decoder.time(row.again + len(row.draft)) / decoder.time(0) - 1.0
        tokens += 1 + row.accepted
        loss += delay - row.accepted
        widest = max(widest, delay)
        assert loss <= PURSE_PER_TOKEN * tokens + PURSE_START + 2 * widest + 1e-6


def test_curve_that_is_wrong_tenfold_costs_a_few_steps_once() -> None:
    seconds = {1: 1.0, 2: 8.0, 3: 9.0, 4: 10.0, 32: 12.0}
    decoder = Decoder.of(curve_of({rows: time**0.1 for rows, time in seconds.items()})).warmed()
    decoder.seconds = seconds
    tokens = spent = 0.0
    for _ in range(5000):
        (row,) = decoder.step([looked_up(31, 32)], [0])
        tokens += 1
        spent += decoder.time(len(row.draft))
    assert tokens < spent < 1.02 * tokens + 40


def test_right_drafts_are_as_fast_as_the_curve_allows() -> None:
    decoder = Decoder.of(curve_of(M3)).warmed()
    tokens = spent = 0.0
    while tokens < 1000:
        (row,) = decoder.step([looked_up(31, 20)], [99])
        tokens += 1 + row.accepted
        spent += decoder.time(len(row.draft))
    assert tokens / spent > 0.9 * TILE_ROWS / M3[32]


def test_no_drafts_are_fed_while_the_purse_is_empty() -> None:
    decoder = Decoder.of(curve_of(M3)).warmed()
    decoder.ledgers[0].purse = 0.0
    assert decoder.plan(looked_up(31, 32)) == (0,)
    decoder.step([NO_DRAFT], [0])
    assert decoder.plan(looked_up(31, 32)) != (0,)


def test_purse_pays_for_the_time_that_drafts_added() -> None:
    decoder = Decoder.of(curve_of(M3)).warmed()
    (ledger,) = decoder.ledgers
    ledger.purse = 1.0
    decoder.step([looked_up(3, 20)], [0])
    assert ledger.purse == pytest.approx(1.0 + PURSE_PER_TOKEN - 0.35)
    decoder.step([looked_up(3, 20)], [2])
    assert ledger.purse == pytest.approx(1.0 + 4 * PURSE_PER_TOKEN - 0.35 + 2 - 0.35)


def test_sequences_share_the_price_of_a_step_by_their_drafts() -> None:
    decoder = Decoder.of(curve_of({1: 1.0, 2: 1.0, 5: 1.3, 32: 9.0}), sequences=2).warmed()
    for ledger in decoder.ledgers:
        ledger.purse = 1.0
    rows = decoder.step([looked_up(2, 20), looked_up(1, 20)], [0, 0])
    assert [len(row.draft) for row in rows] == [2, 1]
    assert decoder.ledgers[0].purse == pytest.approx(1.0 + PURSE_PER_TOKEN - 0.4)
    assert decoder.ledgers[1].purse == pytest.approx(1.0 + PURSE_PER_TOKEN - 0.2)


def test_cancelled_sequence_pays_its_share_of_the_step() -> None:
    decoder = Decoder.of(curve_of({1: 1.0, 2: 1.0, 5: 1.3, 32: 9.0}), sequences=2).warmed()
    drafts = [looked_up(2, 20), looked_up(1, 20)]
    plan = decoder.policy.plan(list(map(Row, decoder.ledgers, drafts)), CONTEXT)
    (staying, _) = decoder.ledgers
    staying.purse = 1.0
    decoder.policy.settle(plan, [Row(staying, drafts[0])], 1.3)
    assert staying.purse == pytest.approx(1.0 + PURSE_PER_TOKEN - 0.4)


def test_purse_pays_for_what_is_fed_again() -> None:
    decoder = Decoder.of(curve_of({1: 1.0, 4: 1.5, 32: 9.0})).warmed()
    (ledger,) = decoder.ledgers
    ledger.purse, decoder.is_fed_again = 1.0, True
    (row,) = decoder.step([looked_up(3, 20)], [2])
    assert (len(row.draft), decoder.again) == (3, 3)
    assert ledger.purse == pytest.approx(1.0 + 3 * PURSE_PER_TOKEN + 2 - 0.5)
    decoder.step([NO_DRAFT], [0])
    assert decoder.again == 0
    assert ledger.purse == pytest.approx(1.0 + 4 * PURSE_PER_TOKEN + 2 - 0.5 - 0.5)


def test_purse_does_not_grow_without_limit() -> None:
    decoder = Decoder.of(curve_of(M3)).warmed()
    for _ in range(20):
        decoder.step([looked_up(31, 32)], [99])
    assert decoder.ledgers[0].purse == pytest.approx(4.0)


# Widths.


def test_drafts_that_cost_no_more_than_few_count_as_few() -> None:
    h200 = {1: 6.0, 2: 9.0, 3: 11.9, 4: 13.8, 6: 18.0, 8: 12.6, 16: 12.8, 32: 16.8}
    decoder = Decoder.of(replace(curve_of(h200), has_exact_widths=True)).warmed()
    assert decoder.plan(looked_up(31, 24)) == (15,)
    assert decoder.plan(looked_up(7, 24)) == (7,)
    decoder.step([looked_up(15, 24)], [0])
    assert decoder.ledgers[0].chance(24) < RowLedger(0.0).chance(24)
    batch = Decoder.of(curve_of(h200), sequences=4).warmed()
    assert NEAR_DRAFTS < max(batch.plan(*[looked_up(31, 24)] * 4)) <= 7


def test_first_drafts_wait_for_plain_steps() -> None:
    decoder = Decoder.of(curve_of(M3))
    assert decoder.plan(looked_up(31, 20)) == (0,)
    assert decoder.warmed().plan(looked_up(31, 20)) == (NEAR_DRAFTS,)


def test_longer_matches_have_more_drafts() -> None:
    decoder = Decoder.of(curve_of({1: 1.0, 2: 1.3, 3: 1.8, 4: 2.4, 32: 9.0})).warmed()
    widths = [decoder.plan(looked_up(31, length))[0] for length in (2, 12, 24)]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1]


def test_far_draft_follows_a_run_or_a_long_match() -> None:
    decoder = Decoder.of(curve_of(M3)).warmed()
    assert decoder.plan(looked_up(31, 31)) == (NEAR_DRAFTS,)
    assert decoder.plan(looked_up(31, 32)) == (FAR_DRAFTS,)
    for _ in range(3):
        decoder.step([looked_up(3, 8)], [99])
    assert decoder.plan(looked_up(31, 8)) == (FAR_DRAFTS,)
    decoder.step([looked_up(3, 8)], [0])
    assert decoder.plan(looked_up(31, 8))[0] <= NEAR_DRAFTS


def test_far_drafts_end_when_they_give_less_than_their_price() -> None:
    decoder = Decoder.of(curve_of(M3)).warmed()
    decoder.ledgers[0].purse = 100.0
    fed = []
    for _ in range(20):
        decoder.ledgers[0].purse = 4.0
        fed.append(len(decoder.step([looked_up(31, 32)], [1])[0].draft))
    assert fed[0] == FAR_DRAFTS
    assert FAR_DRAFTS not in fed[10:]


def test_far_draft_pays_where_near_ones_do_not() -> None:
    decoder = Decoder.of(curve_of(M1)).warmed()
    assert decoder.plan(looked_up(31, 20)) == (0,)
    assert decoder.plan(looked_up(31, 32)) == (FAR_DRAFTS,)


def test_forced_tokens_are_drafted_beyond_the_near_width() -> None:
    decoder = Decoder.of(curve_of(M3)).warmed()
    assert decoder.plan(Draft((forced(6), *looked_up(9).proposals))) == (6,)
    assert decoder.plan(Draft((forced(1), *looked_up(9, 24).proposals))) == (NEAR_DRAFTS,)


def test_one_sequence_a_step_has_a_far_draft_and_the_others_none() -> None:
    decoder = Decoder.of(curve_of(M3), sequences=3).warmed()
    decoder.ledgers[1].far_tokens = 30.0
    widths = decoder.plan(looked_up(31, 32), looked_up(31, 32), looked_up(3, 24))
    assert widths == (0, TILE_ROWS - 3, 0)


def test_all_rows_of_a_step_fit_one_tile() -> None:
    wide = {**M3, 64: 4.5}
    assert Decoder.of(curve_of(wide)).warmed().plan(looked_up(99, 32)) == (FAR_DRAFTS,)
    decoder = Decoder.of(curve_of(wide), sequences=3).warmed()
    assert sum(decoder.plan(looked_up(99, 32), NO_DRAFT, NO_DRAFT)) == TILE_ROWS - 3


def test_near_drafts_of_several_sequences_can_gain_more_than_a_far_one() -> None:
    decoder = Decoder.of(curve_of({1: 1.0, 16: 1.0, 32: 3.0}), sequences=4).warmed()
    decoder.ledgers[0].far_tokens = 9.5
    widths = decoder.plan(looked_up(31, 32), *[looked_up(3, 24)] * 3)
    assert widths == (NEAR_DRAFTS,) * 4
    decoder.ledgers[0].far_tokens = 28.0
    assert decoder.plan(looked_up(31, 32), *[looked_up(3, 24)] * 3) == (28, 0, 0, 0)


def test_drafts_next_to_other_drafts_pay_for_what_they_add() -> None:
    stairs = {1: 1.0, 2: 1.0, 3: 1.3, 6: 1.3, 32: 9.0}
    decoder = Decoder.of(curve_of(stairs), sequences=2).warmed()
    assert decoder.plan(looked_up(1, 24), looked_up(1, 2)) == (1, 1)
    assert decoder.plan(NO_DRAFT, looked_up(1, 2)) == (0, 0)


def test_drafts_that_delay_neighbours_have_to_give_more() -> None:
    steep = curve_of({rows: 1.0 + 0.25 * (rows - 1) for rows in range(1, 33)})
    lone, batch = Decoder.of(steep).warmed(), Decoder.of(steep, sequences=4).warmed()
    assert lone.plan(looked_up(3, 24)) == (NEAR_DRAFTS,)
    (width, *_) = batch.plan(looked_up(3, 24), NO_DRAFT, NO_DRAFT, NO_DRAFT)
    assert width < NEAR_DRAFTS


def test_drafts_whose_refusal_is_dear_have_to_give_more() -> None:
    curve = curve_of({1: 1.0, 2: 1.6, 32: 30.0})
    for is_fed_again, expected in ((False, (1,)), (True, (0,))):
        decoder = Decoder.of(curve).warmed()
        decoder.is_fed_again = is_fed_again
        assert decoder.plan(looked_up(1, 16)) == expected


def test_drafts_next_to_tokens_that_are_fed_again_fit_the_tile() -> None:
    decoder = Decoder.of(curve_of(M3)).warmed()
    decoder.is_fed_again, decoder.again = True, 20
    assert decoder.plan(looked_up(31, 32)) == (TILE_ROWS - 1 - 20,)
    decoder.again = 31
    assert decoder.plan(looked_up(31, 32)) == (0,)


def test_tokens_fed_again_beyond_the_measured_widths_have_no_price() -> None:
    decoder = Decoder.of(curve_of({1: 1.0, 4: 1.5}), seconds=M3).warmed()
    (ledger,) = decoder.ledgers
    decoder.is_fed_again, decoder.again, before = True, 6, ledger.purse
    (row,) = decoder.step([looked_up(3, 32)], [0])
    assert len(row.draft) == 0
    assert ledger.purse == pytest.approx(before + PURSE_PER_TOKEN)


def test_drafts_of_a_step_stay_within_the_measured_widths() -> None:
    short = curve_of({1: 1.0, 2: 1.0, 3: 1.0, 4: 1.1, 5: 1.2})
    assert Decoder.of(short).warmed().plan(looked_up(31, 32)) == (4,)
    batch = Decoder.of(short, sequences=4).warmed()
    assert sum(batch.plan(*[looked_up(31, 32)] * 4)) == 1


def test_far_drafts_are_off_in_contexts_where_they_were_not_measured() -> None:
    near = {rows: time for rows, time in M3.items() if rows <= 4}
    decoder = Decoder.of(curve_of(M3, near))
    decoder.context_tokens = 16 * CONTEXT
    assert decoder.warmed().plan(looked_up(31, 32)) == (NEAR_DRAFTS,)


def test_only_measured_widths_are_fed_where_each_is_compiled() -> None:
    flat = {1: 1.0, 2: 1.0, 4: 1.0, 8: 1.0, 16: 1.1}
    decoder = Decoder.of(replace(curve_of(flat), has_exact_widths=True)).warmed()
    assert decoder.plan(looked_up(2, 24)) == (1,)
    assert decoder.plan(looked_up(31, 32)) == (15,)
    assert decoder.plan(looked_up(12, 32)) == (7,)
    batch = Decoder.of(replace(curve_of(flat), has_exact_widths=True), sequences=3).warmed()
    assert batch.plan(*[looked_up(1, 24)] * 3) == (1, 0, 0)


def test_refused_drafts_of_one_match_length_do_not_count_for_another() -> None:
    decoder = Decoder.of(curve_of(M3)).warmed()
    (ledger,) = decoder.ledgers
    before = ledger.chance(3), ledger.chance(20)
    for _ in range(5):
        decoder.step([looked_up(2, 3)], [0])
    assert ledger.chance(3) < before[0]
    assert ledger.chance(20) == before[1]


def test_forced_tokens_tell_nothing_about_a_match() -> None:
    decoder = Decoder.of(curve_of(M3)).warmed()
    (ledger,) = decoder.ledgers
    before = ledger.chance(4)
    decoder.step([Draft((forced(3),))], [3])
    assert (ledger.chance(4), ledger.run) == (before, 0)
    decoder.step([Draft((forced(1), *looked_up(2, 4).proposals))], [1])
    assert ledger.chance(4) < before
    decoder.step([Draft((forced(1), *looked_up(2, 20).proposals))], [3])
    assert ledger.run == 2


# Whether drafts can pay at all.


def test_drafts_are_off_where_rows_cost_as_much_as_steps() -> None:
    decoder = Decoder.of(curve_of(CPU_4_BIT)).warmed()
    assert decoder.plan(looked_up(15, 32)) == (0,)
    assert decoder.policy.assessment == SpeculationState("no_width_pays", 16, 14.1)


def test_drafts_are_off_without_a_curve() -> None:
    policy = SpeculationPolicy(None)
    decoder = Decoder(policy, M3, [RowLedger()]).warmed()
    assert decoder.plan(looked_up(31, 32)) == (0,)
    assert policy.assessment == NOT_MEASURED


def test_drafts_are_on_where_one_width_pays() -> None:
    assert assess(curve_of(M1)) == SpeculationState("pays", 32, 5.0)
    assert assess(curve_of(CPU_4_BIT, M3)).is_on


def test_step_of_unknown_duration_costs_what_is_expected_and_corrects_nothing() -> None:
    decoder = Decoder.of(curve_of(M3)).warmed()
    (ledger,) = decoder.ledgers
    before = ledger.purse
    plan = decoder.policy.plan([Row(ledger, looked_up(3, 8))], CONTEXT)
    (drafts,) = plan.drafts
    decoder.policy.settle(plan, [Row(ledger, looked_up(drafts, 8))], None)
    price = M3[1 + drafts] / M3[1] - 1
    assert drafts
    assert ledger.purse == pytest.approx(before + PURSE_PER_TOKEN - price)
    assert decoder.plan(looked_up(3, 32))[0] >= drafts


def test_a_single_measured_width_says_nothing_about_drafts() -> None:
    assert assess(curve_of({1: 1.0})) == NOT_MEASURED
