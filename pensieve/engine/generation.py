"""The engine's vocabulary: what is asked of it and what it says. Plain values, no MLX.

The front end builds a `Generation`, the engine answers with `Started`, then any number of `Prefilled` and
`Token`, then one `Finished`. A generation that cannot go on ends in an `EngineError` instead.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol

FinishReason = Literal["stop_token", "length"]
# Who waits for the answer: a person in a conversation, a sub-agent, a title or summary, nobody (a message batch).
Priority = Literal["main", "agent", "side", "batch"]
PRIORITIES: tuple[Priority, ...] = ("main", "agent", "side", "batch")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is chosen from the model's distribution. Checked here, since a bad value would poison the worker.

    Raises ValueError for values out of range.
    """

    temperature: float = 1.0  # 0 is greedy
    top_p: float = 1.0  # nucleus; 1 is off
    top_k: int = 0  # 0 is off
    seed: int | None = None  # None draws from the worker's own stream
    min_p: float = 0.0  # a share of the likeliest token's probability; 0 is off
    repetition_penalty: float = 1.0  # divides the logits of recent tokens; 1 is off

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature <= 2.0:
            raise ValueError(f"temperature {self.temperature} is not in 0..2")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p {self.top_p} is not in (0, 1]")
        if self.top_k < 0:
            raise ValueError(f"top_k {self.top_k} is negative")
        if not 0.0 <= self.min_p <= 1.0:
            raise ValueError(f"min_p {self.min_p} is not in 0..1")
        if not 0.0 < self.repetition_penalty <= 2.0:
            raise ValueError(f"repetition_penalty {self.repetition_penalty} is not in (0, 2]")


@dataclass(frozen=True, slots=True)
class Grammar:
    """What an answer's text must obey, in llguidance's dialect of Lark, with `%json {…}` for JSON Schemas."""

    lark: str


@dataclass(frozen=True, slots=True)
class Generation:
    """One sequence to generate: the prompt's token ids (at least one) and how to go on from them.

    max_tokens: at least 1, the stop token included. stop_tokens: ids that end the answer. boundaries: positions in the
    prompt that later prompts are likely to share up to (end of the system part, end of a turn), ascending.
    pinned_tokens: the prompt's first tokens that other conversations of the same project begin with as well.
    grammar: of the answer; stop tokens are sampled where it may end, and nowhere else. answered_tokens: the prompt's last
    tokens, where they belong to the answer already: the grammar holds for them too.
    """

    prompt_tokens: tuple[int, ...]
    max_tokens: int
    stop_tokens: frozenset[int] = frozenset()
    sampling: Sampling = field(default_factory=Sampling)
    boundaries: tuple[int, ...] = ()
    pinned_tokens: int = 0
    priority: Priority = "main"
    grammar: Grammar | None = None
    answered_tokens: int = 0
    runs_alone: bool = False  # set by the engine client: a worker died with this prompt in work

    def __post_init__(self) -> None:
        if not self.prompt_tokens:
            raise ValueError("a generation needs at least one prompt token")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens {self.max_tokens} is less than 1")
        if not 0 <= self.answered_tokens < len(self.prompt_tokens):
            raise ValueError(f"{self.answered_tokens} answered tokens do not fit the prompt")
        if self.grammar is not None and not self.stop_tokens:
            raise ValueError("an answer with a grammar needs a stop token to end with")


@dataclass(frozen=True, slots=True)
class Started:
    """The engine took the generation; `cached_tokens` of its prompt need no prefill. Said again where that changes in the line."""

    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Prefilled:
    """So many prompt tokens are processed."""

    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Token:
    """One sampled token. A stop token is not among them: `Finished` tells of it."""

    token_id: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The generation ended by itself, after `output_tokens` sampled tokens (the stop token included)."""

    reason: FinishReason
    output_tokens: int


EngineEvent = Started | Prefilled | Token | Finished


# asleep: no worker, since there was no work; the next generation starts one and waits for it.
EngineState = Literal["loading", "ready", "asleep", "failed"]


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """What the engine may use, and how precisely it keeps KV caches. None: chosen for the machine and the model.

    kv_bits: 16 is full precision, as computed. prefix_disk_bytes: for the prefixes of all models; 0 writes none.
    daily_write_bytes: written to disk in 24 hours. is_wired: have macOS keep the model's memory from being paged out.
    """

    memory_limit_bytes: int | None = None
    kv_bits: Literal[16, 8, 4] | None = None
    prefix_disk_bytes: int | None = None
    daily_write_bytes: int | None = None
    is_wired: bool = False


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What the engine uses and how fast it is, at most a second old while it works. `/health` shows it by these names.

    kv_bits None: full precision, as computed. kv_used_bytes: of running sequences; prefix_memory_bytes: at rest; both
    together stay within kv_budget_bytes. prefix_disk_bytes: of all models. is_writing_paused: nothing is written to disk
    now, since it is full, the day's budget is spent, or nothing may be written at all. tokens_per_second: of all answers
    together, when some were last made.
    """

    kv_bits: int | None
    kv_reason: str
    memory_limit_bytes: int
    weights_bytes: int
    kv_budget_bytes: int
    kv_used_bytes: int = 0
    prefix_memory_bytes: int = 0
    prefix_disk_bytes: int = 0
    prefix_disk_cap_bytes: int = 0
    written_today_bytes: int = 0
    daily_write_budget_bytes: int = 0
    is_writing_paused: bool = False
    tokens_per_second: float = 0.0


@dataclass(frozen=True, slots=True)
class EngineHealth:
    """How the engine is: `detail` says why where it is not ready, `restarts` counts replaced
    workers.

    context_tokens: what memory guarantees for a prompt and its answer, as planned until the model
    was loaded; None: not known. figures: what is used, while it is loaded.
    """

    state: EngineState
    detail: str = ""
    worker_pid: int | None = None
    restarts: int = 0
    in_flight: int = 0
    context_tokens: int | None = None
    figures: EngineStats | None = None
    poison_prompts: int = 0  # refused, since the worker died of each of them again and again
    is_model_at_fault: bool = False  # failed, since the model does not load

    @property
    def is_well(self) -> bool:
        """Whether a generation will be answered without being sent again."""
        return self.state in {"ready", "asleep"}

    def context_of(self, model_tokens: int) -> int:
        """The context of a model built for `model_tokens`, as far as memory holds it."""
        return (
            model_tokens if self.context_tokens is None else min(model_tokens, self.context_tokens)
        )


class Engine(Protocol):
    """What the front end holds of the engine (engine/client/client.py); tests hand in a scripted one."""

    @property
    def health(self) -> EngineHealth:
        """How the engine is at this moment."""
        ...

    def generate(
        self, generation: Generation
    ) -> AbstractAsyncContextManager[AsyncIterator[EngineEvent]]:
        """Run one generation. Leaving the block cancels it and frees its slot.

        Entering waits for nothing but the engine's word that it took the generation and raises
        `EngineBusyError` or `EngineFailedError` where it does not; so does the iteration when the worker dies
        (`WorkerDiedError`). A grammar is compiled before that, within seconds; `GrammarError` where it does not compile.
        The first event is `Started`. An engine that is asleep sends it at once, and raises all
        later errors in the iteration. A prompt that the worker died of again and again is refused
        (`PromptUnprocessableError`, `LethalRequestError`).
        """
        ...
