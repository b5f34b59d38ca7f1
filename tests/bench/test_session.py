"""Figures of a server with known rates, on a fake clock."""

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest

from pensieve.bench.answers import Answer, Ask
from pensieve.bench.plan import COPY, SHORT, STEPS, TOGETHER
from pensieve.bench.prompts import Prompts
from pensieve.bench.run import measure_own, measure_running
from pensieve.bench.session import Session
from pensieve.errors import ServerUnavailableError
from tests.bench.fake_served import OFF, PAYS, FakeClock, FakeServed


def session_of(clock: FakeClock, limit_s: float = 60.0) -> Session:
    return Session(limit_s, Prompts(random.Random(1)), clock=clock)


def medians(session: Session) -> dict[str, float]:
    return {figure.name: figure.median for figure in session.figures}


def test_rates_and_first_tokens_are_those_of_the_server() -> None:
    clock = FakeClock()
    session = session_of(clock, 200.0)
    measure_running(FakeServed(clock), session)
    found = medians(session)
    assert found["first token, 4k prompt"] == pytest.approx(4.0, rel=0.05)
    assert found["first token, 4k prompt again"] == pytest.approx(0.021, rel=0.01)
    # The first token is the end of the prefill as a client sees it.
    assert found["prefill, 16k prompt"] == pytest.approx(1000.0, rel=0.01)
    assert found["decode, short prompt"] == pytest.approx(50.0)
    assert found["decode, 16k prompt"] == pytest.approx(50.0)
    assert found["decode, 4 streams together"] == pytest.approx(200.0)
    assert found["decode, copying"] == pytest.approx(50.0)


def test_figures_are_first_tokens_then_prefill_then_decode() -> None:
    clock = FakeClock()
    session = session_of(clock)
    measure_running(FakeServed(clock), session)
    kinds = [figure.name.partition(",")[0] for figure in session.figures]
    changes = [second for first, second in pairwise(kinds) if first != second]
    assert [kinds[0], *changes] == ["first token", "prefill", "decode"]


@pytest.mark.parametrize("prefill", [3.0, 30.0, 300.0, 3e3, 3e5])
@pytest.mark.parametrize("decode", [0.5, 5.0, 50.0, 500.0])
@pytest.mark.parametrize("limit_s", [10.0, 60.0])
def test_time_is_kept_at_any_speed(prefill: float, decode: float, limit_s: float) -> None:
    clock = FakeClock()
    session = session_of(clock, limit_s)
    served = FakeServed(clock, prefill, decode)
    session.begin(served)
    session.measure(served, STEPS)
    assert session.left_s >= 0
    # A faster machine uses the time: what would still fit is measured again.
    assert session.left_s <= max(0.1 * limit_s, session.expected_s(SHORT))


def test_speed_that_drops_ends_the_measuring_in_time() -> None:
    clock = FakeClock()
    session = session_of(clock)
    served = FakeServed(clock)
    session.begin(served)
    served.prefill = served.decode = 0.01
    session.measure(served, STEPS)
    assert session.left_s == 0


def test_no_prompt_is_sent_twice_but_to_measure_the_cache() -> None:
    clock = FakeClock()
    served = FakeServed(clock)
    session = session_of(clock)
    measure_running(served, session)
    texts = [ask.text for asks in served.asked for ask in asks]
    long = [text for text in texts if len(text.split()) > 900]
    short = [text for text in texts if len(text.split()) <= 900]
    assert len(set(short)) == len(short)
    assert len(set(long)) == len(long) / 2


def test_prompt_in_the_cache_gives_no_cold_figure() -> None:
    clock = FakeClock()
    session = session_of(clock)
    measure_running(FakeServed(clock, cached=Everything()), session)
    found = medians(session)
    assert "first token, 1k prompt again" in found
    assert "first token, 1k prompt" not in found
    assert not [name for name in found if name.startswith("prefill")]


class Everything(set[str]):
    def __contains__(self, _: object) -> bool:
        return True


def test_prompt_that_was_not_cached_gives_no_warm_figure() -> None:
    class Forgetful(FakeServed):
        def answers(self, asks: Sequence[Ask], timeout_s: float) -> list[Answer]:
            self.cached.clear()
            return super().answers(asks, timeout_s)

    clock = FakeClock()
    session = session_of(clock)
    measure_running(Forgetful(clock), session)
    assert not [name for name in medians(session) if "again" in name]


def test_running_server_with_drafts_has_them_in_the_names_of_decode_figures() -> None:
    clock = FakeClock()
    session = session_of(clock)
    outcome = measure_running(FakeServed(clock, speculation=PAYS), session)
    decode = [name for name in medians(session) if name.startswith("decode")]
    assert decode
    assert all(name.endswith(", drafts") for name in decode)
    assert f"{session.accepted:,} of {session.drafted:,} accepted" in outcome.drafts
    assert session.drafted


def test_prompts_beyond_the_context_are_left_out_and_named() -> None:
    clock = FakeClock()
    session = session_of(clock)
    outcome = measure_running(FakeServed(clock, context_tokens=8192), session)
    assert "16k prompt: the context is 8,192 tokens" in outcome.left_out
    assert "prefill, 16k prompt" not in medians(session)


def test_what_is_too_slow_is_left_out_with_the_time_that_it_needs() -> None:
    clock = FakeClock()
    session = session_of(clock)
    outcome = measure_running(FakeServed(clock, prefill=300.0), session)
    assert "no time left for 16k prompt (about 9" in outcome.left_out[0]
    assert "pensieve bench --time" in outcome.left_out[0]
    assert medians(session)["prefill, 4k prompt"] == pytest.approx(300.0, rel=0.01)


def test_other_clients_on_the_server_are_noticed() -> None:
    clock = FakeClock()
    session = session_of(clock)
    measure_running(FakeServed(clock, in_flight=1), session)
    assert session.was_shared


class Starts:
    """Starts fake servers, which share a disk; each start takes some seconds."""

    def __init__(self, clock: FakeClock, start_s: float = 3.0, **server: float) -> None:
        self.clock, self.start_s, self.server = clock, start_s, server
        self.disk: set[str] = set()
        self.keeps_disk = True
        self.pays = PAYS
        self.kind = FakeServed
        self.slower_s = 0.0  # each start than the one before
        self.started: list[FakeServed] = []

    def __call__(self, speculation: str) -> FakeServed:
        self.clock.sleep(self.start_s + len(self.started) * self.slower_s)
        state = OFF if speculation == "off" else self.pays
        cached = self.disk if self.keeps_disk else set()
        served = self.kind(self.clock, speculation=state, cached=cached, **self.server)
        self.started.append(served)
        return served


def test_own_server_is_measured_without_drafts_then_restarted_with_them() -> None:
    clock = FakeClock()
    starts, session = Starts(clock), session_of(clock, 120.0)
    outcome = measure_own(starts, session, clock)
    found = medians(session)
    assert [served.speculation for served in starts.started] == [OFF, PAYS]
    assert {"decode, copying", "decode, copying, drafts"} <= found.keys()
    assert {"decode, short prompt", "decode, short prompt, drafts"} <= found.keys()
    assert found["first token, 4k prompt, restarted"] < 0.1
    assert found["first token, 16k prompt, restarted"] < 0.1
    assert "accepted" in outcome.drafts
    assert not outcome.left_out


@pytest.mark.parametrize("start_s", [1.0, 8.0, 40.0, 300.0])
@pytest.mark.parametrize("prefill", [50.0, 5000.0])
def test_own_server_keeps_the_time_after_its_first_start(start_s: float, prefill: float) -> None:
    clock = FakeClock()
    starts = Starts(clock, start_s, prefill=prefill)
    session = session_of(clock)
    measure_own(starts, session, clock)
    assert session.left_s >= 0
    assert session.left_s <= 12


def test_restart_without_time_is_left_out_and_the_time_is_used() -> None:
    clock = FakeClock()
    starts, session = Starts(clock, start_s=40.0), session_of(clock)
    outcome = measure_own(starts, session, clock)
    assert len(starts.started) == 1
    assert "after a restart, with drafts" in outcome.left_out[-1]
    assert session.left_s <= 6


def test_step_that_lasts_too_long_leaves_the_time_for_the_restart() -> None:
    class SlowWithLongPrompts(FakeServed):
        def answers(self, asks: Sequence[Ask], timeout_s: float) -> list[Answer]:
            self.prefill = 10.0 if len(asks[0].text) > 15_000 else 1000.0
            return super().answers(asks, timeout_s)

    clock = FakeClock()
    starts, session = Starts(clock), session_of(clock)
    starts.kind = SlowWithLongPrompts
    outcome = measure_own(starts, session, clock)
    assert len(starts.started) == 2
    assert "first token, 1k prompt, restarted" in medians(session)
    assert "no time left for 4k prompt" in outcome.left_out[0]
    assert session.left_s >= 0


def test_what_is_measured_only_with_drafts_is_left_out_without_them() -> None:
    class SlowWithoutDrafts(FakeServed):
        def answers(self, asks: Sequence[Ask], timeout_s: float) -> list[Answer]:
            self.decode = 50.0 if self.speculation.is_on else 1.2
            return super().answers(asks, timeout_s)

    clock = FakeClock()
    starts, session = Starts(clock), session_of(clock, 80.0)
    starts.kind = SlowWithoutDrafts
    outcome = measure_own(starts, session, clock)
    found = medians(session)
    assert "decode, copying, drafts" in found
    assert "decode, copying" not in found
    assert "copying (about" in outcome.left_out[0]


def test_restart_that_takes_too_long_is_reported() -> None:
    clock = FakeClock()
    starts, session = Starts(clock), session_of(clock)
    starts.slower_s = 100.0
    outcome = measure_own(starts, session, clock)
    assert "first token, 1k prompt, restarted: no time left" in outcome.left_out
    assert "decode with drafts: no time left" in outcome.left_out
    assert medians(session)["decode, short prompt"] == pytest.approx(50.0)


def test_model_that_never_answers_is_unavailable() -> None:
    clock = FakeClock()
    with pytest.raises(ServerUnavailableError, match="has not answered"):
        session_of(clock).begin(FakeServed(clock, decode=0.001))


def test_prefix_that_is_not_on_disk_gives_no_figure() -> None:
    clock = FakeClock()
    starts, session = Starts(clock), session_of(clock)
    starts.keeps_disk = False
    outcome = measure_own(starts, session, clock)
    assert not [name for name in medians(session) if "restarted" in name]
    assert "first token, 4k prompt, restarted: its prefix was not on disk" in outcome.left_out


def test_drafts_that_cannot_pay_are_left_out_with_the_reason() -> None:
    clock = FakeClock()
    starts, session = Starts(clock), session_of(clock)
    starts.pays = type(PAYS)("no_width_pays", 2, 3.0)
    outcome = measure_own(starts, session, clock)
    assert any("cannot pay" in line for line in outcome.left_out)
    assert not [name for name in medians(session) if name.endswith("drafts")]


def test_copies_are_drawn_greedily_and_streams_are_four() -> None:
    clock = FakeClock()
    served = FakeServed(clock)
    session = session_of(clock)
    session.begin(served)
    del served.asked[:]
    session.measure(served, [COPY, TOGETHER])
    assert served.asked[0][0].temperature == 0
    assert len(served.asked[1]) == 4
