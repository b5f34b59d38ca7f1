"""The engine's interface: requests, events and health as plain values. No MLX.

The front end builds a `Generation`; the engine sends `Started`, `Admitted`, then any number of
`Prefilled` and `Token`, then one `Finished`. A generation that fails ends in an `EngineError`
instead.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol, cast, get_args

from pensieve.engine.pictures import PromptPicture, check_places

FinishReason = Literal["stop_token", "length"]
# A conversation, a sub-agent, a side request (title, summary), a message batch.
Priority = Literal["main", "agent", "side", "batch"]
PRIORITIES: tuple[Priority, ...] = ("main", "agent", "side", "batch")
MAX_TOP_LOGPROBS = 20


@dataclass(frozen=True, slots=True)
class Sampling:
    """Raises ValueError for values out of range: they would break sampling in the whole worker."""

    temperature: float = 1.0  # 0 is greedy
    top_p: float = 1.0  # nucleus; 1 is off
    top_k: int = 0  # 0 is off
    seed: int | None = None  # None: the worker's own random stream
    min_p: float = 0.0  # relative to the likeliest token's probability; 0 is off
    repetition_penalty: float = 1.0  # divides the logits of recent tokens; 1 is off
    # Both lower the logits of tokens of the answer, and raise them if negative; 0 is off.
    frequency_penalty: float = 0.0  # for each time that a token occurs
    presence_penalty: float = 0.0  # once
    logit_bias: tuple[tuple[int, float], ...] = ()  # added to the logits of these tokens

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
        penalties = self.frequency_penalty, self.presence_penalty
        if not all(-2.0 <= penalty <= 2.0 for penalty in penalties):
            raise ValueError(f"penalties {penalties} are not in -2..2")
        if not all(-100.0 <= bias <= 100.0 for _, bias in self.logit_bias):
            raise ValueError("a logit bias is not in -100..100")

    @property
    def counts_answer(self) -> bool:
        """Whether tokens depend on how often they are in the answer already."""
        return bool(self.frequency_penalty or self.presence_penalty)


@dataclass(frozen=True, slots=True)
class Grammar:
    """Constrains an answer, in llguidance's dialect of Lark, with `%json {…}` for JSON Schemas."""

    lark: str


@dataclass(frozen=True, slots=True)
class Generation:
    prompt_tokens: tuple[int, ...]  # at least one; those of pictures are `picture_token`s
    max_tokens: int  # at least 1, the stop token included
    stop_tokens: frozenset[int] = frozenset()  # end the answer
    sampling: Sampling = field(default_factory=Sampling)
    # Ascending positions up to which later prompts are likely to be equal: ends of parts, turns.
    boundaries: tuple[int, ...] = ()
    # The prompt's first tokens, which other conversations of the same project share.
    pinned_tokens: int = 0
    priority: Priority = "main"
    client: str = ""  # whose request it is: the name of a key; empty for the default key
    grammar: Grammar | None = None  # stop tokens are sampled where it may end, and nowhere else
    answered_tokens: int = 0  # the prompt's last ones, of the answer: the grammar covers them too
    # Texts that the answer may copy: looked up for drafts, never fed; later ones are preferred.
    hints: tuple[tuple[int, ...], ...] = ()
    pictures: tuple[PromptPicture, ...] = ()  # in the order of their places
    # Likeliest tokens to report with each token; None: no logarithmic probabilities at all.
    top_logprobs: int | None = None
    # Generations with the same prompt are submitted together: it is processed once.
    shares_prompt: bool = False
    runs_alone: bool = False  # set by the engine client: a worker died with this prompt in progress

    def __post_init__(self) -> None:
        if not self.prompt_tokens:
            raise ValueError("a generation needs at least one prompt token")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens {self.max_tokens} is less than 1")
        if not 0 <= self.answered_tokens < len(self.prompt_tokens):
            raise ValueError(f"{self.answered_tokens} answered tokens do not fit the prompt")
        if self.top_logprobs is not None and not 0 <= self.top_logprobs <= MAX_TOP_LOGPROBS:
            raise ValueError(f"{self.top_logprobs} top_logprobs are not in 0..{MAX_TOP_LOGPROBS}")
        if self.grammar is not None and not self.stop_tokens:
            raise ValueError("an answer with a grammar needs a stop token to end with")
        if self.pictures:
            check_places(self.pictures, len(self.prompt_tokens))


@dataclass(frozen=True, slots=True)
class Started:
    # Prompt tokens that need no prefill. Sent again if that changes while the request is queued.
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Admitted:
    """The generation's prefill begins.

    Sent before the work, so that the front end knows which prompts a crash belongs to.
    """


@dataclass(frozen=True, slots=True)
class Requeued:
    """An admitted generation waits again; another `Admitted` follows."""


@dataclass(frozen=True, slots=True)
class Prefilled:
    prompt_tokens: int  # processed so far, cached ones included


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Natural logarithms of probabilities, as the model computes them: before any bias, penalty,
    grammar or temperature.
    """

    token: float  # of the token itself
    top: tuple[tuple[int, float], ...] = ()  # the likeliest tokens, in descending order


@dataclass(frozen=True, slots=True)
class Token:
    token_id: int  # never a stop token: `Finished` follows instead
    logprobs: Logprobs | None = None  # None: the generation asks for none


@dataclass(frozen=True, slots=True)
class SourceCounts:
    drafted: int = 0
    accepted: int = 0

    def __add__(self, other: "SourceCounts") -> "SourceCounts":
        return SourceCounts(self.drafted + other.drafted, self.accepted + other.accepted)


@dataclass(frozen=True, slots=True)
class DraftCounts:
    """Tokens that steps verified next to the one that each computes anyway, by their source."""

    grammar: SourceCounts = SourceCounts()  # the answer's grammar forces them
    lookup: SourceCounts = SourceCounts()  # followed the same tokens before, in prompt or answer
    shadow: SourceCounts = SourceCounts()  # the same in a hint
    mtp: SourceCounts = SourceCounts()  # the model's MTP head predicts them

    @classmethod
    def of(cls, drafted: Mapping[str, int], accepted: Mapping[str, int]) -> "DraftCounts":
        """Both: tokens by source."""
        return cls(
            **{
                source: SourceCounts(drafted.get(source, 0), accepted.get(source, 0))
                for source in cls.__slots__
            }
        )

    @property
    def by_source(self) -> Mapping[str, SourceCounts]:
        return {source: getattr(self, source) for source in self.__slots__}

    @property
    def total(self) -> SourceCounts:
        return self.grammar + self.lookup + self.shadow + self.mtp

    def __add__(self, other: "DraftCounts") -> "DraftCounts":
        return DraftCounts(
            self.grammar + other.grammar,
            self.lookup + other.lookup,
            self.shadow + other.shadow,
            self.mtp + other.mtp,
        )

    def tokens_per_step(self, tokens: int) -> float:
        """Return the tokens per step of answers of `tokens` tokens; 0 without any.

        Each step of a sequence yields one token more than drafts are accepted in it.
        """
        return tokens / max(1, tokens - self.total.accepted)


NO_DRAFTS = DraftCounts()


@dataclass(frozen=True, slots=True)
class Drafted:
    """Sent before the tokens of a step that verified drafts, so that an answer that ends early has
    its counts.
    """

    drafts: DraftCounts  # of the generation so far


@dataclass(frozen=True, slots=True)
class Finished:
    reason: FinishReason
    output_tokens: int  # the stop token included


EngineEvent = Started | Admitted | Requeued | Prefilled | Drafted | Token | Finished


# asleep: unloaded while idle; the next generation starts a worker and waits for it.
EngineState = Literal["loading", "ready", "asleep", "failed"]
# Why a worker was replaced: it could not be started, here or on its host, it died while it loaded
# the model, processed a prompt, decoded or was idle, or it was silent for too long and killed.
RestartCause = Literal["starting", "host", "loading", "prefill", "decode", "idle", "hung"]


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    # None: chosen for the machine and the model.
    memory_limit_bytes: int | None = None
    kv_bits: Literal[16, 8, 4] | None = None  # 16 is full precision, as computed
    prefix_disk_bytes: int | None = None  # for the prefixes of all models; 0 writes none
    daily_write_bytes: int | None = None  # to disk in 24 hours
    is_wired: bool = False  # keep macOS from paging out the model's memory
    engines: int = 1  # that share the machine: each gets an equal part of memory, disk and writes


SpeculationReason = Literal["pays", "no_width_pays", "not_measured", "caches", "setting"]
_REASONS: tuple[SpeculationReason, ...] = get_args(SpeculationReason)


@dataclass(frozen=True, slots=True)
class SpeculationState:
    """Whether steps verify drafts with this model on this device, as decided at its loading."""

    reason: SpeculationReason
    rows: int = 1  # tokens of the step with the largest speed-up
    ratio: float = 1.0  # of its time to that of a step of one
    has_head: bool = False  # an MTP head of the model is one of the sources

    @classmethod
    def from_json(cls, value: object) -> "SpeculationState | None":
        """Parse what was written from `asdict`; None for anything else."""
        match value:
            case {"reason": str(reason), "rows": int(rows), "ratio": float(ratio)}:
                has_head = cast("dict[str, object]", value).get("has_head") is True
                return cls(reason, rows, ratio, has_head) if reason in _REASONS else None
            case _:
                return None

    @property
    def is_on(self) -> bool:
        return self.reason == "pays"

    @property
    def text(self) -> str:
        times = f"{self.rows} tokens at once take {self.ratio:.1f} times as long as one"
        match self.reason:
            case "pays":
                return f"on{', with MTP' if self.has_head else ''}: {times}"
            case "no_width_pays":
                return f"off, cannot pay: {times}"
            case "not_measured":
                return "off: its steps could not be timed"
            case "caches":
                return "off: this model's caches cannot drop refused tokens"
            case "setting":
                return "off by the setting"

    def fix(self, *, is_service: bool = False) -> str:
        """Return the command that may turn it on, empty if none does. is_service: of Homebrew."""
        match self.reason:
            case "setting" if is_service:
                return "pensieve config set speculation auto"
            case "setting":
                return "pensieve restart --speculation auto"
            case "not_measured":
                return "brew services restart pensieve" if is_service else "pensieve restart"
            case _:
                return ""


NOT_MEASURED = SpeculationState("not_measured")


@dataclass(frozen=True, slots=True)
class WorkTotals:
    """Sums over all requests that never go down."""

    preempted: int = 0  # times that a request was returned to the queue for others
    grammar_s: float = 0.0  # of compiling grammars
    drafts: DraftCounts = NO_DRAFTS

    def __add__(self, other: "WorkTotals") -> "WorkTotals":
        return WorkTotals(
            self.preempted + other.preempted,
            self.grammar_s + other.grammar_s,
            self.drafts + other.drafts,
        )


@dataclass(frozen=True, slots=True)
class EngineStats:
    # At most a second old while the engine works. `/health` shows these names.
    kv_bits: int | None  # None: full precision, as computed
    kv_reason: str
    memory_limit_bytes: int
    weights_bytes: int
    kv_budget_bytes: int  # for running sequences and cached prefixes together
    kv_used_bytes: int = 0  # by running sequences
    prefix_memory_bytes: int = 0
    prefix_disk_bytes: int = 0  # of all models
    prefix_disk_cap_bytes: int = 0
    written_today_bytes: int = 0
    daily_write_budget_bytes: int = 0
    # The disk is full, the daily budget is spent, or there is no disk tier.
    is_writing_paused: bool = False
    # Of the worker's process: on macOS as Activity Monitor shows it, elsewhere without GPU memory.
    worker_bytes: int = 0
    queued: int = 0  # requests that wait for their turn or their grammar
    running: int = 0  # requests in prefill or decoding
    tokens_per_second: float = 0.0  # of all answers together, over the latest burst
    prompt_tokens_per_second: float = 0.0  # of the steps that processed prompts latest
    # These since the model was loaded. 0: no tokens yet.
    tokens_per_step: float = 0.0  # of an answer
    preempted: int = 0  # times that a request was returned to the queue for others
    grammar_s: float = 0.0  # of compiling grammars
    drafts: DraftCounts = NO_DRAFTS


@dataclass(frozen=True, slots=True)
class EngineHealth:
    state: EngineState
    detail: str = ""  # why it is not ready
    worker_pid: int | None = None
    restarts_by_cause: Mapping[RestartCause, int] = field(default_factory=dict[RestartCause, int])
    sleeps: int = 0  # times that the model was unloaded while idle
    wakes: int = 0  # times that a request had it loaded again
    in_flight: int = 0
    context_tokens: int | None = None  # that fit for sure; as planned until the model is loaded
    stats: EngineStats | None = None  # while the model is loaded
    poison_prompts: int = 0  # refused because each killed the worker repeatedly
    is_model_at_fault: bool = False  # failed because the model does not load
    speculation: SpeculationState | None = None  # None: not decided yet
    sees: bool = True  # if the model does: False without the memory for it
    totals: WorkTotals = WorkTotals()  # of all workers so far
    replicas: Mapping[str, "EngineHealth"] = field(default_factory=dict[str, "EngineHealth"])

    @property
    def restarts(self) -> int:  # replaced workers
        return sum(self.restarts_by_cause.values())

    @property
    def takes_hints(self) -> bool:
        """Whether hints of generations may save a step."""
        return self.speculation is None or self.speculation.is_on

    @property
    def is_well(self) -> bool:
        """Whether a generation sent now is answered without a retry."""
        return self.state in {"ready", "asleep"}

    def context_of(self, model_tokens: int) -> int:
        """Return the context of a model built for `model_tokens`, limited by memory."""
        return min(model_tokens, self.context_tokens or model_tokens)


class Engine(Protocol):
    """The engine as the front end sees it: engine/client/client.py, or a scripted one in tests."""

    @property
    def health(self) -> EngineHealth: ...

    def expect(self) -> AbstractContextManager[None]:
        """Have an idle engine wait a moment, so that a generation that starts during the block and
        the one that is being prepared in it begin together.
        """
        ...

    def generate(
        self, generation: Generation
    ) -> AbstractAsyncContextManager[AsyncIterator[EngineEvent]]:
        """Run one generation. Leaving the block cancels it and frees its slot.

        Entering waits until the engine has accepted the generation. It raises `EngineBusyError` or
        `EngineFailedError` if the engine refuses it, `GrammarError` if its grammar, which is
        compiled first within seconds, is invalid, and `PromptUnprocessableError` or
        `LethalRequestError` for a prompt that has killed the worker repeatedly. The iteration
        raises `WorkerDiedError` when the worker dies. The first event is `Started`. An engine that
        is asleep sends it at once and raises all later errors in the iteration.
        """
        ...
