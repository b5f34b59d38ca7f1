"""The record of a request: its phases with their times, and its token counts.

`Activity` opens and closes it, endpoints fill in what they learn, and the engine's events reach it
through `begin`. It stays in memory, and holds nothing of what a client sent but for names that
report.py hashes or maps to a bounded list, and for content where the user wants to see it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pensieve.engine.generation import (
    NO_DRAFTS,
    Admitted,
    DraftCounts,
    Drafted,
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
_PHASE_AFTER: Mapping[type[EngineEvent], Phase] = {
    Admitted: "prompt",
    Prefilled: "prompt",
    Requeued: "queued",
    Token: "answer",
}
# The speed of a prompt is that of its latest parts.
LATEST_PARTS = 8
Clock = Callable[[], float]
# Gets the time since the answer's token before; None for its first one.
OnToken = Callable[[float | None], None]


class Listener(Protocol):
    """Learns of tokens and of ended requests, on the event loop. Neither call may raise or wait."""

    def note_token(self, gap_s: float | None) -> None: ...  # as `OnToken`

    def note_ended(self, record: "RequestRecord") -> None:
        """Called for every request that was answered, or left by its client."""
        ...


@dataclass(frozen=True, slots=True)
class Content:
    """What a request and its answer said, shortened: only with the setting `show_content`."""

    prompt: str  # the last text of the user
    answer: str | None = None  # None: it did not end


@dataclass(slots=True)
class GenerationRecord:
    """One answer to a request, which can ask for several."""

    request: "RequestRecord"
    max_tokens: int  # 0: the prompt alone is processed
    phase: Phase = "queued"
    cached_tokens: int | None = None  # None: not known yet
    processed_tokens: int = 0  # of the prompt, cached ones included
    # The time and the processed tokens of the prompt's latest parts.
    parts: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])
    tokens: int = 0
    last_token_at: float | None = None
    drafts: DraftCounts = NO_DRAFTS

    def observe(self, event: EngineEvent) -> None:
        """Note an event as it arrives."""
        request, now = self.request, self.request.clock()
        phase = _PHASE_AFTER.get(type(event), self.phase)
        match event:
            case Token() if self.max_tokens:
                self._note_token(now)
            case Prefilled(processed):
                self.processed_tokens = processed
                self.parts = [*self.parts[-LATEST_PARTS + 1 :], (now, processed)]
            case Started(cached):
                self.cached_tokens = self.processed_tokens = cached
                self.parts = [(now, cached)]
                known = (each.cached_tokens for each in request.generations)
                request.cached_tokens = min(tokens for tokens in known if tokens is not None)
            case Admitted():
                self.parts = [(now, self.processed_tokens)]
            case Drafted(drafts):
                self.drafts = drafts
            case Finished(_, output_tokens) if self.max_tokens:
                request.output_tokens += output_tokens - self.tokens
            case _:
                pass
        if phase != self.phase:
            self.phase = phase
            request.update_phase(now)

    def _note_token(self, now: float) -> None:
        request = self.request
        gap_s = None if self.last_token_at is None else now - self.last_token_at
        self.last_token_at = request.last_token_at = now
        self.tokens += 1
        request.output_tokens += 1
        if request.first_token_s is None:
            request.first_token_s = now - request.began_at
        request.on_token(gap_s)

    @property
    def prompt_tokens_per_second(self) -> float | None:
        if len(self.parts) < 2:
            return None
        (began_at, before), (at, processed) = self.parts[0], self.parts[-1]
        return (processed - before) / (at - began_at) if at > began_at else None


@dataclass(slots=True)
class RequestRecord:
    id: str
    route: str  # an operation's path, or "other"
    wire: str  # anthropic, chat, completions, responses, batch
    user_agent: str
    generates: bool  # whether its operation does
    began_at: float  # by the clock
    clock: Clock
    on_token: OnToken
    phase_began_at: float
    phase_s: dict[Phase, float]
    client_id: str | None = None  # the client's own, safe to log
    key_name: str = ""  # of the named key that was sent; empty for the server's own
    is_streamed: bool = False
    session: str | None = None  # the client's name for it
    priority: Priority = "main"
    diverged_at: int | None = None  # token at which the session's prompt left its last one
    status: int | None = None  # that of its error, for a stream that failed after it began
    is_broken_off: bool = False  # such a stream
    is_client_gone: bool = False
    phase: Phase = "reading"
    generations: list[GenerationRecord] = field(default_factory=list[GenerationRecord])
    prompt_tokens: int | None = None  # None: not known yet
    pictures: int = 0  # in the prompt
    cached_tokens: int | None = None  # what no answer had to process
    max_tokens: int | None = None  # of one answer
    output_tokens: int = 0  # of all answers, stop tokens included
    first_token_s: float | None = None  # since the request's head arrived
    last_token_at: float | None = None
    content: Content | None = None
    total_s: float = 0.0
    ended_at: float = 0.0  # Unix seconds

    def begin(self, generation: Generation, max_tokens: int) -> Callable[[EngineEvent], None]:
        """Note that a generation is submitted; return what observes its events.

        max_tokens: of the answer; 0 if the client wants none.
        """
        self.priority = generation.priority
        self.prompt_tokens, self.max_tokens = len(generation.prompt_tokens), max_tokens
        self.pictures = len(generation.pictures)
        record = GenerationRecord(self, max_tokens)
        self.generations.append(record)
        self.update_phase(self.clock())
        return record.observe

    def update_phase(self, now: float) -> None:
        """Count the time since the last call; take the phase of the answer that is furthest."""
        self.phase_s[self.phase] += now - self.phase_began_at
        self.phase_began_at = now
        phases = (PHASES.index(each.phase) for each in self.generations)
        self.phase = PHASES[max(phases, default=0)]

    def break_off(self, status: int) -> None:
        """Note that a stream failed after its answer had begun with 200."""
        self.status, self.is_broken_off = status, True

    # What reports show in addition. None: not known.

    @property
    def age_s(self) -> float:
        return self.clock() - self.began_at

    @property
    def drafts(self) -> DraftCounts:
        return sum((each.drafts for each in self.generations), NO_DRAFTS)

    @property
    def tokens_per_second(self) -> float | None:
        """Of all answers together, from the first token to the last."""
        if self.first_token_s is None or self.last_token_at is None:
            return None
        seconds = self.last_token_at - self.began_at - self.first_token_s
        tokens = sum(each.tokens for each in self.generations) - 1
        return tokens / seconds if seconds > 0 else None

    @property
    def processed_tokens(self) -> int | None:
        """After a preemption the answer so far is processed as well, which does not count."""
        if self.prompt_tokens is None or self.cached_tokens is None:
            return None
        return min(self.prompt_tokens, max(each.processed_tokens for each in self.generations))

    @property
    def prompt_tokens_per_second(self) -> float | None:
        """Lately, while the prompt is processed."""
        speeds = [each.prompt_tokens_per_second or 0.0 for each in self.generations]
        return max(speeds) or None if self.phase == "prompt" else None

    @property
    def remaining_s(self) -> float | None:
        """Until the prompt is processed, if its speed stays."""
        speed, processed = self.prompt_tokens_per_second, self.processed_tokens
        if speed is None or processed is None or self.prompt_tokens is None:
            return None
        since_s = self.clock() - max(each.parts[-1][0] for each in self.generations)
        return max(0.0, (self.prompt_tokens - processed) / speed - since_s)
