"""The two ways to measure: the running server, or one that is started for it and restarted once."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from pensieve.bench.answers import Served
from pensieve.bench.plan import COPY, LONG, SHORT, STEPS, Step, fits_context, restarted
from pensieve.bench.session import DRAFTS, Session
from pensieve.daemon.health_client import Health
from pensieve.engine.generation import SpeculationState
from pensieve.settings.resolve import SpeculationMode

OWN_SERVER = "pensieve bench --own-server"
# The second start also measures steps of several tokens; before it, prefixes are written to disk.
_RESTART_FACTOR = 1.5
_RESTART_S = 4.0
# The share of the time for what is measured after the restart.
_AFTER_RESTART = 0.25

# Starts a server, after the end of the one before.
Start = Callable[[SpeculationMode], Served]


@dataclass(frozen=True, slots=True)
class Outcome:
    health: Health  # of the server that was measured
    drafts: str
    left_out: tuple[str, ...]


def measure_running(served: Served, session: Session) -> Outcome:
    """Measure a server as it runs: it is neither restarted nor changed."""
    session.begin(served)
    health = served.health()
    has_drafts = health.speculation is not None and health.speculation.is_on
    session.measure(served, _steps(health), has_drafts=has_drafts)
    left_out = [
        *_missing(session, health),
        f"first token after a restart, and decode with and without drafts: {OWN_SERVER}",
    ]
    return Outcome(health, _drafts(health.speculation, session), tuple(left_out))


def measure_own(
    start: Start, session: Session, clock: Callable[[], float] = time.monotonic
) -> Outcome:
    """Measure without drafts; then after a restart, with them."""
    began = clock()
    served = start("off")
    restart_s = (clock() - began) * _RESTART_FACTOR + _RESTART_S
    after_s = _AFTER_RESTART * session.limit_s
    session.begin(served)
    health = served.health()
    session.measure(served, _steps(health), reserve_s=restart_s + after_s)
    if session.left_s < restart_s:
        session.measure(served, _steps(health))
        late = ("after a restart, with drafts", restart_s + after_s)
        return Outcome(health, "off", tuple(_missing(session, health, late)))
    left_out = _missing(session, health)
    drafts, not_measured = _measure_restarted(start("auto"), session)
    return Outcome(health, drafts, (*left_out, *not_measured))


def _measure_restarted(served: Served, session: Session) -> tuple[str, list[str]]:
    """Return the state of drafts, and what could not be measured."""
    session.resume(served)
    sent = [restarted(step) for step in LONG if session.has(step)]
    session.measure(served, sent)
    state = served.health().speculation
    if state and state.is_on:
        session.measure(served, (COPY, SHORT), has_drafts=True)
    names = [figure.name for figure in session.figures]
    left_out = [
        f"first token, {step.name}: "
        f"{'its prefix was not on disk' if session.has(step) else 'no time left'}"
        for step in sent
        if f"first token, {step.name}" not in names
    ]
    if not state or not state.is_on:
        left_out.append(f"decode with drafts: they are {state.text if state else 'unknown'}")
    elif not any(name.endswith(DRAFTS) for name in names):
        left_out.append("decode with drafts: no time left")
    return _drafts(state, session), left_out


def _steps(health: Health) -> list[Step]:
    return [step for step in STEPS if fits_context(step, health.context_tokens)]


def _missing(session: Session, health: Health, *others: tuple[str, float]) -> list[str]:
    """Return what was left out, and why. others: what else is late, with its seconds."""
    steps = _steps(health)
    too_long = [step.name for step in STEPS if step not in steps]
    late = [
        *((step.name, session.expected_s(step)) for step in steps if not session.has(step)),
        *others,
    ]
    reasons = [f"{name}: the context is {health.context_tokens:,} tokens" for name in too_long]
    if late:
        limit_s = session.longer_limit_s([seconds for _, seconds in late])
        listed = "; ".join(f"{name} (about {seconds:.0f} s)" for name, seconds in late)
        reasons.append(f"no time left for {listed}: pensieve bench --time {limit_s}")
    return reasons


def _drafts(state: SpeculationState | None, session: Session) -> str:
    if state is None:
        return "unknown"
    if not session.drafted:
        return state.text
    return f"{state.text}; {session.accepted:,} of {session.drafted:,} accepted"
