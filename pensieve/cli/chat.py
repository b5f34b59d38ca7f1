"""`pensieve chat`: one question, or a plain conversation on a terminal. Talks to the server as any client does."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter
from cyclopts.types import PositiveInt
from cyclopts.validators import Number

from pensieve import settings as settings_module
from pensieve.cli import output
from pensieve.cli.escapes import EscapeStripper
from pensieve.cli.messages import Call, Ended, Server, Turn, answer
from pensieve.cli.target import find_target
from pensieve.errors import PensieveError, UsageError

PROMPT = "> "
INTERRUPTED = 130
DEFAULT_MAX_TOKENS = 1024
# The API's own default of 1 makes small models ramble: SmolLM2-135M names no capital of France (2026-11-22, Linux CPU).
DEFAULT_TEMPERATURE = 0.0


@dataclass(frozen=True, slots=True)
class Figures:
    """How fast an answer came. Seconds from the call: to the first text, to the end."""

    output_tokens: int
    first_text_s: float
    total_s: float

    def __str__(self) -> str:
        """Tokens per second is the decode rate: what came after the first text, over the time that it took."""
        said = f"{self.output_tokens} tokens in {self.total_s:.1f} s"
        decoding_s = self.total_s - self.first_text_s
        if self.output_tokens < 2 or decoding_s <= 0:
            return said
        rate = (self.output_tokens - 1) / decoding_s
        return f"{said} (first after {self.first_text_s:.1f} s), {rate:.1f} tokens per second"


@dataclass(frozen=True, slots=True)
class Manner:
    """How to ask, the same for every question of a conversation. `has_figures`: show them after each answer."""

    server: Server
    model: str
    max_tokens: int
    temperature: float
    system: str
    has_figures: bool
    clock: Callable[[], float] = time.monotonic


def chat(
    *question: str,
    system: Annotated[str, Parameter(name=("--system", "-s"), metavar="TEXT")] = "",
    max_tokens: Annotated[PositiveInt, Parameter(metavar="N")] = DEFAULT_MAX_TOKENS,
    temperature: Annotated[
        float, Parameter(validator=Number(gte=0, lte=1), metavar="T")
    ] = DEFAULT_TEMPERATURE,
    stats: bool = False,
) -> int:
    """Ask the model, or converse with it.

    For example:
      pensieve chat "Why is the sky blue?"
      git diff | pensieve chat "Write a commit message for this."
      pensieve chat                          # a conversation; Ctrl-D leaves

    Parameters
    ----------
    question
        The question. What is piped in comes before it.
    system
        Instructions that hold for the whole conversation.
    max_tokens
        The longest answer, 1024 tokens unless given.
    temperature
        From 0 (always the likeliest word), which is the default, to 1 (freely drawn).
    stats
        Show tokens and seconds on standard error also where it is no terminal.
    """
    target = find_target(settings_module.resolve())
    manner = Manner(
        server=Server(target.base_url, target.api_key),
        model=target.model,
        max_tokens=max_tokens,
        temperature=temperature,
        system=system,
        has_figures=stats or output.is_seen(),
    )
    asked = _joined(output.piped_text(), question)
    if asked:
        _reply(manner, (Turn("user", asked),))
        return 0
    if not output.is_typed():
        raise UsageError(
            "There is no question, and nobody at a terminal to ask for one.",
            hint='Give it as an argument or pipe it in:\n  pensieve chat "Why is the sky blue?"',
        )
    return converse(manner)


def converse(manner: Manner) -> int:
    """Questions and answers until Ctrl-D. Ctrl-C ends an answer; twice at an empty prompt it leaves."""
    output.aside(f"{manner.model}. Ctrl-C ends an answer, Ctrl-D leaves.")
    turns: tuple[Turn, ...] = ()
    was_interrupted = False
    while True:
        try:
            line = output.ask(PROMPT).strip()
        except EOFError:
            output.note("")
            return 0
        except KeyboardInterrupt:
            output.note("" if was_interrupted else "\nCtrl-D or Ctrl-C again leaves.")
            if was_interrupted:
                return INTERRUPTED
            was_interrupted = True
            continue
        was_interrupted = False
        if line:
            turns = _exchange(manner, turns, line)


def _exchange(manner: Manner, turns: tuple[Turn, ...], line: str) -> tuple[Turn, ...]:
    """The conversation with one more question and what was answered; as it was where nothing was."""
    asked = (*turns, Turn("user", line))
    said: list[str] = []
    try:
        _reply(manner, asked, said)
    except KeyboardInterrupt:
        output.aside("(ended)")
    except PensieveError as error:
        output.failure(error.message, error.hint)
    text = "".join(said)
    return (*asked, Turn("assistant", text)) if text.strip() else turns


def _reply(manner: Manner, turns: tuple[Turn, ...], said: list[str] | None = None) -> None:
    """Show the answer to `turns` as it arrives and put its text into `said`, also where it is broken off."""
    call = Call(manner.model, turns, manner.max_tokens, manner.temperature, manner.system)
    pieces = said if said is not None else []
    stripper = EscapeStripper()
    began_at, first_at = manner.clock(), None
    ended = Ended("", 0)
    with closing(answer(manner.server, call)) as stream:
        try:
            for event in stream:
                if isinstance(event, Ended):
                    ended = event
                    continue
                first_at = manner.clock() if first_at is None else first_at
                pieces.append(stripper.feed(event.text))
                output.stream(pieces[-1])
        finally:
            if first_at is not None or ended.stop_reason:
                output.stream("\n")
    ended_at = manner.clock()
    first_text_s = (ended_at if first_at is None else first_at) - began_at
    _conclude(manner, ended, Figures(ended.output_tokens, first_text_s, ended_at - began_at))


def _conclude(manner: Manner, ended: Ended, figures: Figures) -> None:
    if ended.stop_reason == "max_tokens":
        output.aside(f"The answer stops at --max-tokens {manner.max_tokens}.")
    if manner.has_figures:
        output.aside(str(figures))


def _joined(piped: str | None, words: tuple[str, ...]) -> str:
    """What was piped in, then the question, with an empty line between them."""
    return "\n\n".join(part for part in ((piped or "").strip(), " ".join(words).strip()) if part)
