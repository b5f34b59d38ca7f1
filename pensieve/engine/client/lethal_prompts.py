"""Prompts that end the engine worker: remembered by what was in work at each death. Pure.

A death counts against every prompt in work. Those that shared it are suspects and run alone from
then on, so that no bystander is blamed; the one that was alone at its second death in the same
phase is poison, and is refused.
"""

from array import array
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal

from pensieve.errors import LethalRequestError, PensieveError, PromptUnprocessableError

Phase = Literal["prefill", "decode"]
DEATHS_UNTIL_REFUSED = 2
MAX_REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class PromptInProgress:
    """A prompt that the worker was processing or answering; `done_tokens` of it were processed."""

    tokens: Sequence[int]
    phase: Phase
    done_tokens: int = 0


@dataclass(slots=True)
class _Suspect:
    length: int
    deaths: Counter[Phase] = field(default_factory=Counter[Phase])
    poison: PromptInProgress | None = None


class LethalPrompts:
    """Owns the memory of deaths, the last `MAX_REMEMBERED` prompts; the engine client asks it."""

    def __init__(self) -> None:
        self._suspects: OrderedDict[bytes, _Suspect] = OrderedDict()

    @property
    def count(self) -> int:
        """How many prompts are refused now."""
        return sum(suspect.poison is not None for suspect in self._suspects.values())

    def note_death(self, in_work: Sequence[PromptInProgress]) -> None:
        """Count a death against everything that was in work."""
        for each in in_work:
            digest = _digest(each.tokens)
            suspect = self._suspects.setdefault(digest, _Suspect(len(each.tokens)))
            self._suspects.move_to_end(digest)
            suspect.deaths[each.phase] += 1
            if len(in_work) == 1 and suspect.deaths[each.phase] >= DEATHS_UNTIL_REFUSED:
                suspect.poison = each
        while len(self._suspects) > MAX_REMEMBERED:
            self._suspects.popitem(last=False)

    def note_finished(self, tokens: Sequence[int]) -> None:
        """Clear a prompt: it was answered."""
        if self._suspects:
            self._suspects.pop(_digest(tokens), None)

    def is_suspect(self, tokens: Sequence[int]) -> bool:
        """Whether this prompt was in work at a death and must run alone."""
        return bool(self._suspects) and _digest(tokens) in self._suspects

    def refusal(self, tokens: Sequence[int]) -> PensieveError | None:
        """Return the error for a poison prompt; None for any other.

        A prompt that begins with one that could not be processed is poison as well.
        """
        for digest, suspect in self._suspects.items():
            if (poison := suspect.poison) is None or len(tokens) < suspect.length:
                continue
            if poison.phase == "decode" and len(tokens) > suspect.length:
                continue
            if _digest(tokens[: suspect.length]) == digest:
                return _error_of(poison)
        return None


def _error_of(poison: PromptInProgress) -> PensieveError:
    """Return what is known. Where nothing was processed, nothing shows that a shorter prompt would be."""
    if poison.phase == "prefill" and poison.done_tokens:
        return PromptUnprocessableError(
            DEATHS_UNTIL_REFUSED, len(poison.tokens), poison.done_tokens
        )
    work = "answered this request" if poison.phase == "decode" else "began with this prompt"
    return LethalRequestError(
        f"The engine ended {DEATHS_UNTIL_REFUSED} times while it {work}."
        " It is not tried again; change the request, or restart the server."
    )


def _digest(tokens: Sequence[int]) -> bytes:
    return blake2b(array("i", tokens).tobytes(), digest_size=16).digest()
