"""Frames between the front end and the engine worker: four bytes of length (big endian), then JSON.

Front end to worker: `Load` once, then `Submit` and `Cancel`, `Pixels` for each `Wanted`, and
`Unload` at the end. Worker to front end: `Loaded` or `LoadFailed` once, then one `Step` with the
events of each decode step, `EngineStats` about once a second, `Begun` before long work, the parts
of loading included, `Wanted` for a picture, and `Preloaded` at most once. A front end on another
machine also sends empty frames while it is there. The end of the stream in either direction means
that the other process is gone. JSON and never pickle, so that no frame can run code. A generation's
token ids are base64 of 32-bit numbers: 30 000 of them are written in 0.6 ms, as a JSON array in 2
(2026-11-30, two x86-64 cores).
"""

import json
from array import array
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, assert_never

from pensieve.engine.generation import (
    NOT_MEASURED,
    Admitted,
    DraftCounts,
    Drafted,
    EngineEvent,
    EngineStats,
    Finished,
    Generation,
    Grammar,
    Logprobs,
    Prefilled,
    Requeued,
    ResourceLimits,
    Sampling,
    SourceCounts,
    SpeculationState,
    Started,
    Token,
)
from pensieve.engine.pictures import PromptPicture
from pensieve.errors import GrammarError

HEADER_BYTES = 4
PING = bytes(HEADER_BYTES)
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
        reason = str(error) or type(error).__name__
        return cls(f"The engine failed on this request: {reason}", "engine")


WorkerEvent = EngineEvent | Failed


@dataclass(frozen=True, slots=True)
class Load:
    model_folder: str
    device: str  # "gpu" or "cpu"
    prefix_folder: str | None = None  # the disk prefix cache; None: no disk tier
    limits: ResourceLimits = field(default_factory=ResourceLimits)
    prefix_salt: str = ""  # prefixes stored under another salt are not found
    has_speculation: bool = True  # where it pays on the device
    has_preload: bool = True  # of pinned prefixes from disk
    has_pictures: bool = True  # where the model has a tower


@dataclass(frozen=True, slots=True)
class Submit:
    """Start a generation; every later frame names it by `key`."""

    key: int
    generation: Generation
    followers: int = 0  # other generations that are being prepared


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop this generation. Unknown keys are ignored."""

    key: int


@dataclass(frozen=True, slots=True)
class Pixels:
    """A part of a picture: 8-bit RGB, row by row. Ignored unless it was wanted."""

    picture_id: str
    content: bytes
    is_last: bool


@dataclass(frozen=True, slots=True)
class Unload:
    """Spill prefixes to disk and exit. The front end submits nothing after it."""


@dataclass(frozen=True, slots=True)
class Loaded:
    load_s: float
    context_tokens: int  # of prompt and answer together, guaranteed to fit in memory
    speculation: SpeculationState = NOT_MEASURED
    sees: bool = False  # pictures


@dataclass(frozen=True, slots=True)
class Wanted:
    """The worker needs a picture of a generation to go on with its prompt."""

    key: int
    picture_id: str


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
class Preloaded:
    """Pinned prefixes are back in memory, read from disk while nothing ran."""

    prefixes: int
    tokens: int
    spent_s: float


@dataclass(frozen=True, slots=True)
class Step:
    events: tuple[tuple[int, WorkerEvent], ...]  # in order, each with its generation's key


FromFrontEnd = Load | Submit | Cancel | Pixels | Unload
FromWorker = Loaded | LoadFailed | Begun | Preloaded | Wanted | Step | EngineStats
Frame = FromFrontEnd | FromWorker

# Of a picture in one frame. At most 50 MB are a picture.
PIXELS_BYTES = 8 * 2**20


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
    name, values = json.loads(body)
    match name:
        case "Step":
            return Step(tuple((key, _event(kind, of_event)) for key, kind, of_event in values))
        case "Submit":
            generation = _generation(values["generation"])
            return Submit(values["key"], generation, values["followers"])
        case "Load":
            values["limits"] = ResourceLimits(**values["limits"])
        case "Loaded":
            values["speculation"] = SpeculationState(**values["speculation"])
        case "Pixels":
            values["content"] = b64decode(values["content"], validate=True)
        case "EngineStats":
            values["drafts"] = _drafts(values["drafts"])
        case _:
            pass
    return _PLAIN[name](**values)


class FrameBuffer:
    """Splits a byte stream into frames; owned by the stream's reader."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, received: bytes) -> list[Frame]:
        """Return the frames that `received` completes. Raises like `decode` for invalid frames."""
        self._pending += received
        frames: list[Frame] = []
        while (body := self._next_body()) is not None:
            if body:  # an empty one only shows that the other process is there
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
    kind.__name__: kind
    for kind in (
        *(Load, Cancel, Pixels, Unload),
        *(Loaded, LoadFailed, Begun, Preloaded, Wanted, EngineStats),
    )
}
_EVENTS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (Admitted, Requeued, Started, Prefilled, Token, Finished, Failed)
}


def _fields(frame: Frame) -> Any:
    match frame:
        case Step(events):
            return [(key, type(event).__name__, _values(event)) for key, event in events]
        case Submit(key, generation, followers):
            return {
                "key": key,
                "generation": _generation_fields(generation),
                "followers": followers,
            }
        case Pixels(picture_id, content, is_last):
            encoded = b64encode(content).decode()
            return {"picture_id": picture_id, "content": encoded, "is_last": is_last}
        case Load() | Cancel() | Unload() | Loaded() | LoadFailed() | Begun():
            return asdict(frame)
        case Preloaded() | Wanted() | EngineStats():
            return asdict(frame)
        case _:
            assert_never(frame)


def _values(event: WorkerEvent) -> list[Any]:
    match event:
        case Admitted() | Requeued():
            return []
        case Started(tokens) | Prefilled(tokens):
            return [tokens]
        case Token(token_id, logprobs):
            return [token_id, *((logprobs.token, logprobs.top) if logprobs else ())]
        case Drafted(drafts):
            return [(counts.drafted, counts.accepted) for counts in drafts.by_source.values()]
        case Finished(reason, output_tokens):
            return [reason, output_tokens]
        case Failed(message, kind):
            return [message, kind]
        case _:
            assert_never(event)


def _event(kind: str, values: list[Any]) -> WorkerEvent:
    if kind == "Drafted":
        return Drafted(DraftCounts(*(SourceCounts(*counts) for counts in values)))
    if kind == "Token" and len(values) > 1:
        token_id, logprob, top = values
        return Token(token_id, Logprobs(logprob, _pairs(top)))
    return _EVENTS[kind](*values)


def _drafts(values: dict[str, Any]) -> DraftCounts:
    return DraftCounts(**{source: SourceCounts(**counts) for source, counts in values.items()})


def _pairs(values: list[list[Any]]) -> tuple[tuple[int, float], ...]:
    return tuple((token, number) for token, number in values)


def _sampling(values: dict[str, Any]) -> Sampling:
    values["logit_bias"] = _pairs(values["logit_bias"])
    return Sampling(**values)


def _generation_fields(generation: Generation) -> dict[str, Any]:
    # `asdict` would copy each token.
    values = {each.name: getattr(generation, each.name) for each in fields(Generation)}
    return {
        **values,
        "prompt_tokens": _packed(generation.prompt_tokens),
        "pictures": [(one.id, one.start, one.rows, one.columns) for one in generation.pictures],
        "stop_tokens": sorted(generation.stop_tokens),
        "sampling": asdict(generation.sampling),
        "grammar": asdict(generation.grammar) if generation.grammar else None,
        "hints": [_packed(hint) for hint in generation.hints],
    }


def _packed(tokens: Sequence[int]) -> str:
    return b64encode(array("i", tokens).tobytes()).decode()


def _unpacked(packed: str) -> tuple[int, ...]:
    tokens = array("i")
    tokens.frombytes(b64decode(packed, validate=True))
    return tuple(tokens)


def _generation(values: dict[str, Any]) -> Generation:
    grammar = values["grammar"]
    return Generation(
        prompt_tokens=_unpacked(values["prompt_tokens"]),
        max_tokens=values["max_tokens"],
        pictures=tuple(PromptPicture(*fields) for fields in values["pictures"]),
        stop_tokens=frozenset(values["stop_tokens"]),
        sampling=_sampling(values["sampling"]),
        boundaries=tuple(values["boundaries"]),
        pinned_tokens=values["pinned_tokens"],
        priority=values["priority"],
        client=values["client"],
        grammar=Grammar(**grammar) if grammar else None,
        answered_tokens=values["answered_tokens"],
        hints=tuple(map(_unpacked, values["hints"])),
        top_logprobs=values["top_logprobs"],
        shares_prompt=values["shares_prompt"],
        runs_alone=values["runs_alone"],
    )
