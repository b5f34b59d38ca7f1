"""What is measured, the most important first, and which of it fits into the time left. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

STREAMS = 4
# An answer is as long as it takes to decode for this time, within these tokens.
_ANSWER_S = 2.0
_MIN_ANSWER, _MAX_ANSWER = 16, 256
# Longer prompts are processed more slowly than the one that the estimate is from: on two x86-64
# cores 4000 tokens took 1.7 times as long per token as 1000 (tiny model, 2026-11-27).
_LONGER = 1.7
# A cached prefix is read at least so many times as fast as it is processed.
_READ_SPEEDUP = 5.0
# A prompt is only about as long as it should be, and the template adds to it.
_SLACK = 1.05
_TEMPLATE_TOKENS = 256

Kind = Literal["prompt", "streams", "copy", "restarted"]


@dataclass(frozen=True, slots=True)
class Step:
    """One measurement; it is repeated while time is left."""

    name: str  # as figures name it
    kind: Kind
    prompt_tokens: int = 0
    is_essential: bool = False  # its first time may use the time kept for a restart

    @property
    def is_long(self) -> bool:
        """Whether the prompt is long enough for a prefill rate, and is sent again."""
        return self.prompt_tokens > 0

    @property
    def is_single(self) -> bool:
        """Whether it can be measured only once: a prompt is read from disk once."""
        return self.kind == "restarted"


SHORT = Step("short prompt", "prompt", is_essential=True)
LONG = (
    Step("1k prompt", "prompt", 1_000, is_essential=True),
    Step("4k prompt", "prompt", 4_000),
    Step("16k prompt", "prompt", 16_000),
)
TOGETHER = Step(f"{STREAMS} streams together", "streams")
COPY = Step("copying", "copy")
# The long prompts last: on a slow machine one of them would take the time of all others.
STEPS = (SHORT, LONG[0], TOGETHER, COPY, *LONG[1:])


@dataclass(frozen=True, slots=True)
class Pace:
    """Rates so far, in tokens/s; the prefill's is of the longest prompt so far."""

    prefill: float
    decode: float
    prompt_tokens: int = 0  # of that prompt

    @property
    def answer_tokens(self) -> int:
        return min(max(round(self.decode * _ANSWER_S), _MIN_ANSWER), _MAX_ANSWER)


def restarted(step: Step) -> Step:
    return Step(f"{step.name}, restarted", "restarted", step.prompt_tokens)


def fits_context(step: Step, context_tokens: int) -> bool:
    """Whether prompt and answer fit; a context of 0 is unknown."""
    needed = step.prompt_tokens * _SLACK + _TEMPLATE_TOKENS + _MAX_ANSWER
    return not context_tokens or needed <= context_tokens


def expected_s(step: Step, pace: Pace, lasted_s: Mapping[Step, float]) -> float:
    """Return how long a step takes: as long as the last time, else by the pace."""
    if step in lasted_s:
        return lasted_s[step]
    answer_s = pace.answer_tokens / pace.decode
    prefill_s = step.prompt_tokens / pace.prefill
    match step.kind:
        case "restarted":
            return prefill_s / _READ_SPEEDUP
        case "streams":
            return STREAMS * answer_s
        case "copy":
            return 2 * pace.answer_tokens / pace.prefill + answer_s
        case "prompt":
            margin = _LONGER if step.prompt_tokens > 2 * pace.prompt_tokens else 1.0
            return prefill_s * margin + (2 if step.is_long else 1) * answer_s


def next_step(
    counts: Mapping[Step, int],
    pace: Pace,
    lasted_s: Mapping[Step, float],
    left_s: float,
    reserve_s: float = 0.0,
) -> Step | None:
    """Return the least often measured step, the most important of these, that fits; None if none.

    counts: of every step, by importance.
    """
    fitting = [
        step
        for step, count in counts.items()
        if not (step.is_single and count)
        and expected_s(step, pace, lasted_s) <= left_s - kept_s(step, count, reserve_s)
    ]
    return min(fitting, key=lambda step: counts[step], default=None)


def kept_s(step: Step, count: int, reserve_s: float) -> float:
    """Return how much of the time for a restart a step must not use."""
    return 0.0 if step.is_essential and not count else reserve_s


def longer_limit_s(limit_s: float, missing_s: Sequence[float]) -> int:
    """Return a limit within which what is missing would be measured, too, in half minutes."""
    return 30 * -(-int(limit_s + 1.2 * sum(missing_s) + 5) // 30)
