"""The record of a request: its phases with their times, and its token counts.

`Activity` opens and closes it, endpoints fill in what they learn, and the engine's events reach it
through `begin`. It stays in memory, and holds nothing of what a client sent but for the names that
`activity/report.py` hashes or maps to a bounded list.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

from pensieve.engine.generation import (
    NO_DRAFTS,
    Admitted,
    DraftCounts,
    EngineEvent,
    Finished,
    Generation,
    Prefilled,
    Priority,
    Requeued,
    Started,
    Token,
)

# reading: until the engine has the prompt. queued: also while the model is loaded. prompt: until
# the first token.
Phase = Literal["reading", "queued", "prompt", "answer"]
PHASES: tuple[Phase, ...] = ("reading", "queued", "prompt", "answer")
# The prompt's speed is that of as many of its latest parts.
LATEST_PARTS = 8
Clock = Callable[[], float]
T = TypeVar("T")


class Listener(Protocol):
    """Learns of tokens and of ended requests, on the event loop. Neither call may raise or wait."""

    def note_token(self, gap_s: float | None) -> None:
        """gap_s: since the answer's token before; None for its first one."""
        ...

    def note_ended(self, record: "RequestRecord") -> None:
        """Called for every request that was answered, or left by its client."""
        ...


@dataclass(slots=True)
class GenerationRecord:
    """One generation of a request. A request can ask for several answers."""

    request: "RequestRecord"
    prompt_tokens: int
    max_tokens: int  # 0: the prompt alone is processed
    phase: Phase = "queued"
    cached_tokens: int | None = None  # None: not known yet
    processed_tokens: int | None = None  # of the prompt, cached ones included
    output_tokens: int = 0
    drafts: DraftCounts = NO_DRAFTS
    # The time and the processed tokens of the prompt's latest parts.
    parts: deque[tuple[float, int]] = field(
        default_factory=lambda: deque[tuple[float, int]](maxlen=LATEST_PARTS)
    )
    tokens: int = 0
    first_token_at: float | None = None
    last_token_at: float | None = None

    def observe(self, event: EngineEvent) -> None:
        """Note an event as it arrives. Costs about a microsecond."""
        now = self.request.clock()
        match event:
            case Token() if self.max_tokens:
                self._note_token(now)
            case Prefilled(processed):
                self.processed_tokens = processed
                self.parts.append((now, processed))
                self._enter("prompt", now)
            case Started(cached):
                self.cached_tokens = self.processed_tokens = cached
                self._restart_parts(now)
            case Admitted():
                self._enter("prompt", now)
                self._restart_parts(now)
            case Requeued():
                self._enter("queued", now)
            case Finished(_, output_tokens, drafts) if self.max_tokens:
                self.output_tokens, self.drafts = output_tokens, drafts
            case _:
                pass

    def _note_token(self, now: float) -> None:
        gap_s = None if self.last_token_at is None else now - self.last_token_at
        self.last_token_at = now
        self.tokens += 1
        self.output_tokens += 1
        if self.phase != "answer":
            self.first_token_at = self.first_token_at or now
            self._enter("answer", now)
        for listener in self.request.listeners:
            listener.note_token(gap_s)

    def _restart_parts(self, now: float) -> None:
        """Begin to measure the prompt's speed: waiting for its turn does not count."""
        self.parts.clear()
        if self.phase == "prompt" and self.processed_tokens is not None:
            self.parts.append((now, self.processed_tokens))

    def _enter(self, phase: Phase, now: float) -> None:
        if phase != self.phase:
            self.phase = phase
            self.request.update_phase(now)

    @property
    def prompt_tokens_per_second(self) -> float | None:
        if len(self.parts) < 2:
            return None
        (began_at, before), (at, processed) = self.parts[0], self.parts[-1]
        return (processed - before) / (at - began_at) if at > began_at else None

    @property
    def remaining_s(self) -> float | None:
        """Of the prompt, if its speed stays."""
        if not (speed := self.prompt_tokens_per_second):
            return None
        at, processed = self.parts[-1]
        return max(0.0, (self.prompt_tokens - processed) / speed - (self.request.clock() - at))


@dataclass(slots=True)
class RequestRecord:
    id: str
    route: str  # an operation's path, or "other"
    wire: str  # anthropic, chat, completions, responses, batch
    user_agent: str
    generates: bool  # whether its operation does
    clock: Clock  # of all times but `ended_at`
    listeners: Sequence[Listener]
    began_at: float
    method: str = "POST"
    client_id: str | None = None  # the client's own name for the request
    is_streamed: bool = False
    session: str | None = None  # the client's name for it
    priority: Priority = "main"
    diverged_at: int | None = None  # token at which the session's prompt left its last one
    status: int | None = None
    is_client_gone: bool = False
    phase: Phase = "reading"
    phase_began_at: float = 0.0
    phase_s: dict[Phase, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    generations: list[GenerationRecord] = field(default_factory=list[GenerationRecord])
    ended_at: float = 0.0  # Unix seconds
    total_s: float = 0.0

    def __post_init__(self) -> None:
        self.phase_began_at = self.began_at

    def begin(self, generation: Generation, max_tokens: int) -> Callable[[EngineEvent], None]:
        """Note that a generation is submitted; return what observes its events.

        max_tokens: of the answer; 0 if the client wants none.
        """
        self.priority = generation.priority
        record = GenerationRecord(self, len(generation.prompt_tokens), max_tokens)
        self.generations.append(record)
        self.update_phase(self.clock())
        return record.observe

    def update_phase(self, now: float) -> None:
        """Take the phase of the generation that is furthest."""
        furthest = PHASES[max(PHASES.index(each.phase) for each in self.generations)]
        if furthest != self.phase:
            self.phase_s[self.phase] += now - self.phase_began_at
            self.phase, self.phase_began_at = furthest, now

    def end(self, now: float, unix_s: float) -> None:
        self.phase_s[self.phase] += now - self.phase_began_at
        self.phase_began_at, self.total_s, self.ended_at = now, now - self.began_at, unix_s

    # What reports show. None: not known.

    @property
    def age_s(self) -> float:
        return self.clock() - self.began_at

    @property
    def prompt_tokens(self) -> int | None:
        return max((each.prompt_tokens for each in self.generations), default=None)

    @property
    def cached_tokens(self) -> int | None:
        """The prompt counts once, as far as it was processed for any answer."""
        return min(_known(each.cached_tokens for each in self.generations), default=None)

    @property
    def processed_tokens(self) -> int | None:
        prompt_tokens = self.prompt_tokens or 0
        counts = _known(each.processed_tokens for each in self.generations)
        # After a preemption the answer so far is processed as well.
        return min(max(counts), prompt_tokens) if counts else None

    @property
    def max_tokens(self) -> int | None:
        return max((each.max_tokens for each in self.generations), default=None)

    @property
    def output_tokens(self) -> int:
        return sum(each.output_tokens for each in self.generations)

    @property
    def drafts(self) -> DraftCounts:
        return sum((each.drafts for each in self.generations), NO_DRAFTS)

    @property
    def first_token_s(self) -> float | None:
        """Since the request's head arrived."""
        first = min(_known(each.first_token_at for each in self.generations), default=None)
        return None if first is None else first - self.began_at

    @property
    def tokens_per_second(self) -> float | None:
        """Of all its answers together, from the first token to the last."""
        firsts = _known(each.first_token_at for each in self.generations)
        lasts = _known(each.last_token_at for each in self.generations)
        tokens = sum(each.tokens for each in self.generations)
        if not firsts or max(lasts) <= min(firsts):
            return None
        return (tokens - 1) / (max(lasts) - min(firsts))

    @property
    def prompt_tokens_per_second(self) -> float | None:
        """Of the prompt in work, lately."""
        speeds = _known(each.prompt_tokens_per_second for each in self.generations)
        return max(speeds, default=None) if self.phase == "prompt" else None

    @property
    def remaining_s(self) -> float | None:
        rests = _known(each.remaining_s for each in self.generations)
        return max(rests, default=None) if self.phase == "prompt" else None


def _known(values: Iterable[T | None]) -> list[T]:
    return [value for value in values if value is not None]
