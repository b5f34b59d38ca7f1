"""Frames between the front end and the engine worker: four bytes of length (big endian), then JSON.

Front end to worker: `Load` once, then `Submit` and `Cancel`, and `Unload` at the end. Worker to
front end: `Loaded` or `LoadFailed` once, then one `Step` with the events of each decode step,
`EngineStats` about once a second, and `Begun` before long work, the parts of loading included. The
end of the stream in either direction means that the other process is gone. JSON and never pickle,
so that no frame can run code.
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


# busy: a retry helps. grammar: another grammar may help. engine: neither does.
FailureKind = Literal["busy", "grammar", "engine"]


@dataclass(frozen=True, slots=True)
class Failed:
    """The generation ended with an error."""

    message: str
    kind: FailureKind

    @classmethod
    def of(cls, error: Exception) -> "Failed":
        if isinstance(error, GrammarError):
            return cls(error.message, "grammar")
        return cls(f"The engine failed on this request: {error}", "engine")


@dataclass(frozen=True, slots=True)
class Admitted:
    """The generation's prefill begins.

    Sent before the work, so that the front end knows which prompt a crash belongs to.
    """


WorkerEvent = EngineEvent | Failed | Admitted


@dataclass(frozen=True, slots=True)
class Load:
    model_folder: str
    device: str  # "gpu" or "cpu"
    prefix_folder: str | None = None  # the disk prefix cache; None: no disk tier
    limits: ResourceLimits = field(default_factory=ResourceLimits)
    prefix_salt: str = ""  # prefixes stored under another salt are not found
    has_speculation: bool = True  # where it pays on the device


@dataclass(frozen=True, slots=True)
class Submit:
    """Start a generation; every later frame names it by `key`."""

    key: int
    generation: Generation


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop this generation. Unknown keys are ignored."""

    key: int


@dataclass(frozen=True, slots=True)
class Unload:
    """Spill prefixes to disk and exit. The front end submits nothing after it."""


@dataclass(frozen=True, slots=True)
class Loaded:
    load_s: float
    context_tokens: int  # of prompt and answer together, guaranteed to fit in memory


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The model does not load; the worker exits."""

    message: str


@dataclass(frozen=True, slots=True)
class Begun:
    """The worker starts long work and sends no frame until it is done."""

    work: str  # for people: "reading the weights (3.2 of 16.1 GB)"
    timeout_s: float  # a healthy worker sends its next frame sooner


@dataclass(frozen=True, slots=True)
class Step:
    events: tuple[tuple[int, WorkerEvent], ...]  # in order, each with its generation's key


Frame = Load | Submit | Cancel | Unload | Loaded | LoadFailed | Begun | Step | EngineStats


def encode(frame: Frame) -> bytes:
    """Return the frame's bytes, header included."""
    body = _TO_JSON.encode([type(frame).__name__, _fields(frame)]).encode()
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def body_bytes(header: bytes) -> int:
    """Return the length of the body after this header. Raises ValueError if it is too long."""
    length = int.from_bytes(header, "big")
    if length > MAX_FRAME_BYTES:
        raise ValueError(f"frame of {length} bytes exceeds the limit of {MAX_FRAME_BYTES}")
    return length


def decode(body: bytes) -> Frame:
    """Parse a body. Raises ValueError, TypeError or KeyError for anything but a frame."""
    name, fields = json.loads(body)
    match name:
        case "Step":
            return Step(tuple((key, _event(kind, values)) for key, kind, values in fields))
        case "Submit":
            return Submit(fields["key"], _generation(fields["generation"]))
        case "Load":
            fields["limits"] = ResourceLimits(**fields["limits"])
            return Load(**fields)
        case _:
            return _PLAIN[name](**fields)


class FrameBuffer:
    """Splits a byte stream into frames; owned by the stream's reader."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, received: bytes) -> list[Frame]:
        """Return the frames that `received` completes. Raises like `decode` for invalid frames."""
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
        hints=tuple(tuple(hint) for hint in fields["hints"]),
        runs_alone=fields["runs_alone"],
    )
