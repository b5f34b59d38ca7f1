"""Remembers the prompts in progress when a worker died, and refuses those that kill it. Pure.

A death counts against every prompt in progress. If there were several, each is a suspect and runs
alone from then on, so that no other prompt is blamed. A prompt that was alone at its second death
in the same phase is poison and is refused.
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
    tokens: Sequence[int]
    phase: Phase
    done_tokens: int = 0  # of the prompt, processed so far


@dataclass(slots=True)
class _Suspect:
    length: int
    deaths: Counter[Phase] = field(default_factory=Counter[Phase])
    poison: PromptInProgress | None = None


class LethalPrompts:
    """Owns the suspects, at most the latest `MAX_REMEMBERED`. Used by the engine client."""

    def __init__(self) -> None:
        self._suspects: OrderedDict[bytes, _Suspect] = OrderedDict()

    @property
    def count(self) -> int:
        """Number of poison prompts."""
        return sum(suspect.poison is not None for suspect in self._suspects.values())

    def note_death(self, in_progress: Sequence[PromptInProgress]) -> None:
        for each in in_progress:
            digest = _digest(each.tokens)
            suspect = self._suspects.setdefault(digest, _Suspect(len(each.tokens)))
            self._suspects.move_to_end(digest)
            suspect.deaths[each.phase] += 1
            if len(in_progress) == 1 and suspect.deaths[each.phase] >= DEATHS_UNTIL_REFUSED:
                suspect.poison = each
        while len(self._suspects) > MAX_REMEMBERED:
            self._suspects.popitem(last=False)

    def note_finished(self, tokens: Sequence[int]) -> None:
        """Clear a prompt that was answered."""
        if self._suspects:
            self._suspects.pop(_digest(tokens), None)

    def is_suspect(self, tokens: Sequence[int]) -> bool:
        """Whether this prompt was in progress at a death and must run alone."""
        return bool(self._suspects) and _digest(tokens) in self._suspects

    def refusal(self, tokens: Sequence[int]) -> PensieveError | None:
        """Return the error for a poison prompt, or for one that begins with a prompt whose prefill
        is poison; None for any other.
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
    # Advise a shorter prompt only if a part of this one was processed.
    if poison.phase == "prefill" and poison.done_tokens:
        return PromptUnprocessableError(
            DEATHS_UNTIL_REFUSED, len(poison.tokens), poison.done_tokens
        )
    work = "answered this request" if poison.phase == "decode" else "began with this prompt"
    return LethalRequestError(
        f"The engine ended {DEATHS_UNTIL_REFUSED} times while it {work}."
        " It is not tried again. Change the request, or restart the server."
    )


def _digest(tokens: Sequence[int]) -> bytes:
    return blake2b(array("i", tokens).tobytes(), digest_size=16).digest()
