"""What a sequence's drafts gave: acceptance by match length, far drafts."""

import pytest

from pensieve.engine.speculation.draft_source import Draft, Proposal
from pensieve.engine.speculation.row_ledger import RowLedger


def looked_up(tokens: int, match_length: int = 4) -> Draft:
    return Draft((Proposal("lookup", (0,) * tokens, match_length),))


def test_longer_matches_are_more_likely_right_before_any_draft() -> None:
    chances = [RowLedger(15.0).chance(length) for length in (2, 8, 16, 32)]
    assert chances == sorted(set(chances))
    assert all(0.5 < chance < 1.0 for chance in chances)


def test_old_refusals_fade() -> None:
    ledger = RowLedger(15.0)
    for accepted in (*[0] * 10, *[1] * 90):
        ledger.note(looked_up(1), accepted, is_far=False)
    assert ledger.chance(4) > 0.94


def test_expected_tokens_of_certain_drafts_are_their_number() -> None:
    ledger = RowLedger(15.0)
    draft = Draft((Proposal("grammar", (0, 0), is_certain=True), *looked_up(2).proposals))
    chance = ledger.chance(4)
    expected = [0.0, 1.0, 2.0, 2.0 + chance, 2.0 + chance + chance**2]
    assert ledger.expected_tokens(draft) == pytest.approx(expected)


def test_far_drafts_are_expected_to_give_what_they_gave_lately() -> None:
    ledger = RowLedger(15.0)
    for _ in range(20):
        ledger.note(looked_up(31), 4, is_far=True)
    assert ledger.far_tokens == pytest.approx(4.0, abs=0.1)
    assert ledger.chance(4) == RowLedger(15.0).chance(4)


def test_short_draft_that_is_right_to_its_end_does_not_lower_what_longer_ones_give() -> None:
    ledger = RowLedger(15.0)
    ledger.note(looked_up(5), 5, is_far=True)
    assert ledger.far_tokens == 15.0
    ledger.note(looked_up(31), 31, is_far=True)
    assert ledger.far_tokens > 15.0


def test_long_runs_of_near_drafts_raise_what_far_ones_are_expected_to_give() -> None:
    ledger = RowLedger(4.0)
    for _ in range(40):
        ledger.note(looked_up(3), 3, is_far=False)
        ledger.note_run(max_far=20)
    assert 15.0 < ledger.far_tokens <= 20.0


def test_refused_draft_ends_the_run() -> None:
    ledger = RowLedger(15.0)
    ledger.note(looked_up(3), 3, is_far=False)
    assert ledger.run == 3
    ledger.note(looked_up(3), 2, is_far=False)
    assert ledger.run == 0
