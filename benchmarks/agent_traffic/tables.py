"""What a replay measured, as tables of 80 columns for three servers. For benchmarks/replay.py."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.agent_traffic.session import Prompt, Turn

Figures = dict[str, float]

COLD, WARM = "first token, cold launch, s", "first token, next turn, s"
KNOWN = "first token, launch with known tools, s"
AFTER_KILL = "first token after SIGKILL, s"
# By the kind of turn; other kinds are next turns.
KINDS = {
    "title": "first token, title next to a launch, s",
    "agent": "first token, sub-agent during an answer, s",
    "compact": "first token, compaction, s",
    "compacted": "first token after compaction, s",
}
ORDER = (COLD, WARM, AFTER_KILL, KNOWN, *KINDS.values())
_MARKS = {"after": "", "with": "+ ", "during": "> "}


@dataclass(frozen=True)
class Answer:
    """One turn, as measured. Tokens are those that the server reports."""

    turn: Turn
    prompt: Prompt
    first_token_s: float = 0.0
    end_s: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int | None = None  # None: not reported
    answer_tokens: int = 0
    freeze_s: float | None = None  # the longest gap, if another prompt came in during the answer
    is_after_kill: bool = False  # the first one
    error: str = ""

    @property
    def figure(self) -> str:
        """Return the name of the figure that this first token belongs to."""
        if self.is_after_kill:
            return AFTER_KILL
        if self.turn.kind == "launch":
            return KNOWN if self.prompt.shared_tokens else COLD
        return KINDS.get(self.turn.kind, WARM)

    @property
    def hit_rate(self) -> float | None:
        """Return the cached part of the prompt."""
        if self.cached_tokens is None or not self.prompt_tokens:
            return None
        return self.cached_tokens / self.prompt_tokens


@dataclass
class Run:
    """What was measured of one server."""

    name: str
    answers: list[Answer] = field(default_factory=list)
    restarts_s: list[float] = field(default_factory=list)  # from start to ready, after SIGKILL


def turns_table(runs: Sequence[Run]) -> str:
    """Return first token and hit rate of each turn, with the lengths of the shape."""
    lines = [_line("", "new", "shared", [run.name for run in runs])]
    lines.append(_line("", "", "", ["first s  cached"] * len(runs)))
    # An interrupted session has other lengths.
    lines += [_turn_line(answers) for answers in zip(*(run.answers for run in runs), strict=False)]
    return "\n".join(lines)


def _turn_line(answers: Sequence[Answer]) -> str:
    turn, prompt = answers[0].turn, answers[0].prompt
    is_after_kill = any(answer.is_after_kill for answer in answers)
    label = f"{_MARKS[turn.starts]}{turn.label}{' KILLED' if is_after_kill else ''}"
    new, shared = prompt.tokens - prompt.shared_tokens, prompt.shared_tokens
    return _line(label, str(new), str(shared), [_cell(answer) for answer in answers])


def _line(label: str, new: str, shared: str, cells: Sequence[str]) -> str:
    return f"{label:18}{new:>5}{shared:>7}" + "".join(f" {cell:>15}" for cell in cells)


def _cell(answer: Answer) -> str:
    if answer.error:
        return "failed"
    rate = answer.hit_rate
    return f"{answer.first_token_s:.2f} {'not told' if rate is None else format(rate, '.0%'):>8}"


def summary(run: Run) -> Figures:
    """Return the figures of one server. First tokens are medians."""
    answers = [answer for answer in run.answers if not answer.error]
    figures = _first_tokens(answers)
    if run.restarts_s:
        figures["ready again after SIGKILL, s"] = statistics.median(run.restarts_s)
    if freezes := [answer.freeze_s for answer in answers if answer.freeze_s is not None]:
        figures["longest freeze of a running answer, s"] = max(freezes)
    return figures | _tokens(answers) | _failures(run)


def _first_tokens(answers: Sequence[Answer]) -> Figures:
    times_s = {
        name: [answer.first_token_s for answer in answers if answer.figure == name]
        for name in ORDER
    }
    return {name: statistics.median(each) for name, each in times_s.items() if each}


def _tokens(answers: Sequence[Answer]) -> Figures:
    shared = sum(answer.prompt.shared_tokens for answer in answers)
    figures = {"shared of all prompt tokens, %": 100 * shared / _shape_tokens(answers)}
    reported = [answer for answer in answers if answer.hit_rate is not None]
    if reported:
        cached = sum(answer.cached_tokens or 0 for answer in reported)
        sent = sum(answer.prompt_tokens for answer in reported)
        figures["cached of all prompt tokens, %"] = 100 * cached / sent
    return figures | {
        "answer tokens": float(sum(answer.answer_tokens for answer in answers)),
        "all answers one after another, s": sum(answer.end_s for answer in answers),
    }


def _shape_tokens(answers: Sequence[Answer]) -> int:
    return sum(answer.prompt.tokens for answer in answers) or 1


def _failures(run: Run) -> Figures:
    failed = sum(bool(answer.error) for answer in run.answers)
    return {"failed turns": float(failed)} if failed else {}


def report(run: Run) -> dict[str, Any]:
    """Return all that was measured, for JSON."""
    return {
        "name": run.name,
        "figures": summary(run),
        "restarts_s": run.restarts_s,
        "answers": [_row(answer) for answer in run.answers],
    }


def _row(answer: Answer) -> dict[str, Any]:
    prompt = answer.prompt
    row = {name: value for name, value in vars(answer).items() if name not in ("turn", "prompt")}
    lengths = {"tokens": prompt.tokens, "shared_tokens": prompt.shared_tokens}
    return {"turn": answer.turn.label, "shape": lengths, **row}
