"""When drafts of an MTP head are worth their time, and that they cost little if they are not."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pensieve.engine.speculation.cost_curve import ContextCosts, CostCurve
from pensieve.engine.speculation.draft_source import HEAD, NO_DRAFT, Draft, Proposal
from pensieve.engine.speculation.policy import Row, SpeculationPolicy, StepPlan, head_can_pay
from pensieve.engine.speculation.row_ledger import PURSE_PER_TOKEN, PURSE_START, RowLedger
from pensieve.engine.speculation.step_costs import MIN_PLAIN_STEPS

CONTEXT = 1000
BY_HEAD = Draft((Proposal(HEAD, (0,)),))
M3 = {1: 1.0, 2: 1.0, 3: 1.13, 4: 1.35}


def curve_of(seconds: dict[int, float]) -> CostCurve:
    return CostCurve((ContextCosts(CONTEXT, seconds),))


@dataclass
class Decoder:
    """One sequence without other drafts; steps take what `seconds` says, the head `head_s`."""

    policy: SpeculationPolicy
    seconds: dict[int, float]
    head_s: float
    ledger: RowLedger
    is_fed_again: bool = False
    again: int = 0

    @classmethod
    def of(
        cls, seconds: dict[int, float], head_s: float, *, is_fed_again: bool = False
    ) -> "Decoder":
        policy = SpeculationPolicy(curve_of(seconds), head_s)
        decoder = cls(policy, seconds, head_s, RowLedger(), is_fed_again)
        for _ in range(MIN_PLAIN_STEPS):
            policy.settle(policy.plan([decoder.row()], CONTEXT), [decoder.row()], seconds[1])
        return decoder

    def row(self, draft: Draft = NO_DRAFT, accepted: int = 0) -> Row:
        return Row(self.ledger, draft, accepted, self.again, self.is_fed_again)

    def plan(self) -> StepPlan:
        plan = self.policy.plan([self.row()], CONTEXT)
        if not self.policy.prefers_head(plan, self.row()):
            return plan
        return replace(plan, drafts=(1,), head_s=self.head_s)

    def step(self, *, is_right: bool) -> tuple[int, float]:
        """Decode once. Return the accepted drafts, and the time in plain steps."""
        plan = self.plan()
        (drafts,) = plan.drafts
        accepted = drafts if is_right else 0
        spent = self.seconds[1 + self.again + drafts] + plan.head_s
        row = self.row(BY_HEAD.first(drafts), accepted)
        self.policy.settle(plan, [row], spent)
        is_refused = self.is_fed_again and drafts > accepted
        self.again = self.again + 1 if is_refused else 0
        return accepted, spent / self.seconds[1]


def test_right_head_is_used_for_all_steps() -> None:
    decoder = Decoder.of(M3, 0.1)
    steps = [decoder.step(is_right=True) for _ in range(100)]
    assert sum(accepted for accepted, _ in steps) == 100
    assert sum(spent for _, spent in steps) == pytest.approx(110)
    assert decoder.ledger.head_chance > 0.85


@pytest.mark.parametrize("is_fed_again", [False, True])
def test_wrong_head_costs_two_percent_and_little_more(is_fed_again: bool) -> None:
    decoder = Decoder.of({1: 1.0, 2: 1.3, 3: 1.5, 4: 1.6}, 0.1, is_fed_again=is_fed_again)
    spent = sum(decoder.step(is_right=False)[1] for _ in range(2000))
    assert 2000 < spent < 1.02 * 2000 + 3


@given(
    seconds=st.lists(st.floats(0.7, 4.0), min_size=40, max_size=40),
    head_s=st.floats(0.01, 0.6),
    script=st.lists(st.booleans(), min_size=1, max_size=9),
    is_fed_again=st.booleans(),
)
@settings(max_examples=100)
def test_head_costs_two_percent_and_two_steps_at_most(
    seconds: list[float], head_s: float, script: list[bool], is_fed_again: bool
) -> None:
    decoder = Decoder.of(dict(enumerate(seconds, 1)), head_s, is_fed_again=is_fed_again)
    assume(decoder.policy.assessment.has_head)
    tokens, loss, widest = float(MIN_PLAIN_STEPS), 0.0, 0.0
    for is_right in script * 30:
        accepted, spent = decoder.step(is_right=is_right)
        tokens += 1 + accepted
        loss += spent - 1 - accepted
        widest = max(widest, spent - 1)
        assert loss <= PURSE_PER_TOKEN * tokens + PURSE_START + 2 * widest + 1e-6


def test_head_gives_way_to_drafts_that_are_worth_more() -> None:
    decoder = Decoder.of(M3, 0.1)
    long = Draft((Proposal("lookup", (0,) * 3, 32),))
    plan = decoder.policy.plan([decoder.row(long)], CONTEXT)
    assert plan.drafts == (3,)
    assert not decoder.policy.prefers_head(plan, decoder.row(long))
    short = Draft((Proposal("lookup", (0,), 2),))
    plan = decoder.policy.plan([decoder.row(short)], CONTEXT)
    assert plan.drafts == (1,)
    decoder.ledger.note(BY_HEAD, 1, is_far=False)
    assert decoder.policy.prefers_head(plan, decoder.row(short))


def test_head_is_not_asked_without_a_purse_or_prices() -> None:
    decoder = Decoder.of(M3, 0.1)
    plan = decoder.policy.plan([decoder.row()], CONTEXT)
    assert decoder.policy.prefers_head(plan, decoder.row())
    decoder.ledger.purse = 0.0
    assert not decoder.policy.prefers_head(plan, decoder.row())
    new = SpeculationPolicy(curve_of(M3), 0.1)
    row = Row(RowLedger())
    assert not new.prefers_head(new.plan([row], CONTEXT), row)
    without = SpeculationPolicy(curve_of(M3))
    assert not without.prefers_head(plan, row)


def test_head_that_became_slow_is_left_out_and_tried_again_much_later() -> None:
    decoder = Decoder.of(M3, 0.1)
    decoder.head_s = 2.0
    for _ in range(40):
        decoder.ledger.purse = 4.0
        decoder.step(is_right=True)
    assert decoder.plan().drafts == (0,)
    decoder.head_s = 0.1
    steps = 0
    while decoder.plan().drafts == (0,):
        decoder.step(is_right=True)
        steps += 1
    assert 100 < steps < 10_000


@pytest.mark.parametrize(
    ("seconds", "head_s", "pays"),
    [
        (M3, 0.1, True),
        (M3, 0.59, True),
        (M3, 0.61, False),
        ({1: 1.0, 2: 1.7, 32: 2.0}, 0.1, False),
        ({1: 2.0, 2: 2.4, 32: 4.0}, 0.2, True),
        ({1: 1.0, 32: 2.0}, 0.1, False),
        ({1: 1.0, 2: 2.0, 32: 40.0}, 0.01, False),
        (M3, None, False),
    ],
)
def test_head_can_pay_where_two_tokens_and_its_draft_take_less_than_two_steps(
    seconds: dict[int, float], head_s: float | None, pays: bool
) -> None:
    curve = curve_of(seconds)
    assert head_can_pay(curve, head_s) is pays
    assert SpeculationPolicy(curve, head_s).assessment.has_head is pays


def test_draft_that_a_grammar_refused_is_paid_for() -> None:
    decoder = Decoder.of(M3, 0.2)
    before = decoder.ledger.purse
    plan = replace(decoder.policy.plan([decoder.row()], CONTEXT), head_s=0.2)
    decoder.policy.settle(plan, [decoder.row()], None)
    assert decoder.ledger.purse == pytest.approx(before + PURSE_PER_TOKEN - 0.2)


def test_heads_drafts_say_nothing_about_lookups() -> None:
    ledger, new = RowLedger(), RowLedger()
    for _ in range(20):
        ledger.note(BY_HEAD, 0, is_far=False)
    assert ledger.head_chance < 0.4
    assert [ledger.chance(length) for length in range(32)] == [
        new.chance(length) for length in range(32)
    ]
    for _ in range(20):
        ledger.note(BY_HEAD, 1, is_far=False)
    assert (ledger.run, ledger.far_tokens) == (0, new.far_tokens)
