"""Frames between the front end and the engine worker: four bytes of length (big endian), then JSON.

Front end to worker: `Load` once, then `Submit` and `Cancel`, `Unload` in the end. Worker to
front end: `Loaded` or `LoadFailed` once, then one `Step` for all that one decode step brought,
`EngineStats` now and then, and `Begun` before whatever may take long, the parts of loading among it.
The end of the stream in either direction means that the other side is gone. JSON, never pickle:
nothing that arrives here is run.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, assert_never

from pensieve.engine.generation import (
    EngineEvent,
    EngineStats,
    Finished,
    Generation,
    Grammar,
    Prefilled,
    ResourceLimits,
    Sampling,
    Started,
    Token,
)
from pensieve.errors import GrammarError

HEADER_BYTES = 4
MAX_FRAME_BYTES = 64 * 1024 * 1024
_TO_JSON = json.JSONEncoder(separators=(",", ":"))


# Where trying again helps; where another grammar may help; where neither does.
FailureKind = Literal["busy", "grammar", "engine"]


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker gives this generation up."""

    message: str
    kind: FailureKind

    @classmethod
    def of(cls, error: Exception) -> "Failed":
        """What is told of an error that ended one generation."""
        if isinstance(error, GrammarError):
            return cls(error.message, "grammar")
        return cls(f"The engine failed on this request: {error}", "engine")


@dataclass(frozen=True, slots=True)
class Admitted:
    """The generation is in work from now on.

    Sent before the work begins, so that a worker that dies of it has said so.
    """


WorkerEvent = EngineEvent | Failed | Admitted


@dataclass(frozen=True, slots=True)
class Load:
    """The model folder to load, the device ("gpu" or "cpu") to run it on, where prefixes are kept on disk, if at all, and
    what all of it may use. prefix_salt: what of them is found again.
    """

    model_folder: str
    device: str
    prefix_folder: str | None = None
    allowance: ResourceLimits = field(default_factory=ResourceLimits)
    prefix_salt: str = ""


@dataclass(frozen=True, slots=True)
class Submit:
    """Generate; `key` names the generation in every later frame."""

    key: int
    generation: Generation


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody waits for this generation any more."""

    key: int


@dataclass(frozen=True, slots=True)
class Unload:
    """Write what is worth keeping to disk and end. Nothing is submitted after it."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The model is in memory; `context_tokens` of prompt and answer together are guaranteed to fit as well."""

    load_s: float
    context_tokens: int


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The model cannot be loaded; the worker ends."""

    message: str


@dataclass(frozen=True, slots=True)
class Begun:
    """The worker begins something after which it sends its next frame."""

    work: str  # for people: "reading the weights (3.2 of 16.1 GB)"
    patience_s: float  # a healthy worker sends its next frame sooner


@dataclass(frozen=True, slots=True)
class Step:
    """All events of one step, in order, each with its generation's key."""

    events: tuple[tuple[int, WorkerEvent], ...]


Frame = Load | Submit | Cancel | Unload | Loaded | LoadFailed | Begun | Step | EngineStats


def encode(frame: Frame) -> bytes:
    """The frame's bytes, header included."""
    body = _TO_JSON.encode([type(frame).__name__, _fields(frame)]).encode()
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def body_bytes(header: bytes) -> int:
    """How long the body behind this header is. Raises ValueError for what cannot be a frame."""
    length = int.from_bytes(header, "big")
    if length > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {length} bytes")
    return length


def decode(body: bytes) -> Frame:
    """The frame in `body` (without its header). Raises ValueError, TypeError or KeyError for anything else."""
    name, fields = json.loads(body)
    match name:
        case "Step":
            return Step(tuple((key, _event(kind, values)) for key, kind, values in fields))
        case "Submit":
            return Submit(fields["key"], _generation(fields["generation"]))
        case "Load":
            fields["allowance"] = ResourceLimits(**fields["allowance"])
            return Load(**fields)
        case _:
            return _PLAIN[name](**fields)


class FrameBuffer:
    """Cuts a byte stream into frames; owned by whoever reads the stream."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, received: bytes) -> list[Frame]:
        """The frames that `received` completes."""
        self._pending += received
        frames: list[Frame] = []
        while (body := self._next_body()) is not None:
            frames.append(decode(body))
        return frames

    def _next_body(self) -> bytes | None:
        if len(self._pending) < HEADER_BYTES:
            return None
        end = HEADER_BYTES + body_bytes(bytes(self._pending[:HEADER_BYTES]))
        if len(self._pending) < end:
            return None
        body = bytes(self._pending[HEADER_BYTES:end])
        del self._pending[:end]
        return body


_PLAIN: dict[str, Any] = {
    kind.__name__: kind for kind in (Cancel, Unload, Loaded, LoadFailed, Begun, EngineStats)
}
_EVENTS: dict[str, Any] = {
    kind.__name__: kind for kind in (Admitted, Started, Prefilled, Token, Finished, Failed)
}


def _fields(frame: Frame) -> Any:
    match frame:
        case Step(events):
            return [(key, type(event).__name__, _values(event)) for key, event in events]
        case Submit(key, generation):
            stop_tokens = sorted(generation.stop_tokens)
            return {
                "key": key,
                "generation": {**asdict(generation), "stop_tokens": stop_tokens},
            }
        case Load() | Cancel() | Unload() | Loaded() | LoadFailed() | Begun() | EngineStats():
            return asdict(frame)
        case _:
            assert_never(frame)


def _values(event: WorkerEvent) -> list[Any]:
    match event:
        case Admitted():
            return []
        case Started(cached_tokens):
            return [cached_tokens]
        case Prefilled(prompt_tokens):
            return [prompt_tokens]
        case Token(token_id):
            return [token_id]
        case Finished(reason, output_tokens):
            return [reason, output_tokens]
        case Failed(message, kind):
            return [message, kind]
        case _:
            assert_never(event)


def _event(kind: str, values: list[Any]) -> WorkerEvent:
    return _EVENTS[kind](*values)


def _generation(fields: dict[str, Any]) -> Generation:
    grammar = fields["grammar"]
    return Generation(
        prompt_tokens=tuple(fields["prompt_tokens"]),
        max_tokens=fields["max_tokens"],
        stop_tokens=frozenset(fields["stop_tokens"]),
        sampling=Sampling(**fields["sampling"]),
        boundaries=tuple(fields["boundaries"]),
        pinned_tokens=fields["pinned_tokens"],
        priority=fields["priority"],
        grammar=Grammar(**grammar) if grammar else None,
        answered_tokens=fields["answered_tokens"],
        runs_alone=fields["runs_alone"],
    )
