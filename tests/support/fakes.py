"""Fakes for any test: an engine that plays scripts, and a tokenizer over bytes."""

import codecs
import re
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.lowlevel

from pensieve.dialects.dialect import Dialect
from pensieve.dialects.families import plain
from pensieve.engine.generation import (
    EngineEvent,
    EngineHealth,
    Finished,
    Generation,
    Started,
    Token,
)
from pensieve.errors import InvalidRequestError
from pensieve.models.folder.sight import Sight
from pensieve.models.served_model import ServedModel

Step = EngineEvent | BaseException | anyio.Event | Callable[[], object]


class RustPanic(BaseException):
    """A library's panic as pyo3 raises it: no `Exception`."""


def says(text: str, *, cached_tokens: int = 0) -> list[Step]:
    """Return a script: the bytes of `text` as tokens, then the stop token."""
    tokens = [Token(byte) for byte in text.encode()]
    return [Started(cached_tokens), *tokens, Finished("stop_token", len(tokens) + 1)]


@dataclass
class ScriptedEngine:
    """Plays one script per generation, and the last one repeatedly.

    It waits for anyio events in a script and calls callables. A script ends at max_tokens, as in an
    engine.
    """

    scripts: Iterable[Sequence[Step]]
    health: EngineHealth = field(default_factory=lambda: EngineHealth("ready", worker_pid=1))
    refusal: BaseException | None = None
    generations: list[Generation] = field(default_factory=list)
    expected: int = 0  # generations in preparation
    expected_at_start: list[int] = field(default_factory=list)  # others, when each began
    # Set when a caller leaves a generation before its end.
    left: anyio.Event = field(default_factory=anyio.Event)

    def __post_init__(self) -> None:
        self._remaining = list(self.scripts)

    @contextmanager
    def expect(self) -> Iterator[None]:
        self.expected += 1
        try:
            yield
        finally:
            self.expected -= 1

    @asynccontextmanager
    async def generate(self, generation: Generation) -> AsyncIterator[AsyncIterator[EngineEvent]]:
        if self.refusal is not None:
            raise self.refusal
        self.generations.append(generation)
        self.expected_at_start.append(self.expected)
        script = self._remaining.pop(0) if len(self._remaining) > 1 else self._remaining[0]
        playback = _Playback(list(script), generation.max_tokens)
        try:
            yield playback
        finally:
            if not playback.is_over:
                self.left.set()


class _Playback:
    """The events of one script. As with the real engine, a cancelled wait can be repeated."""

    def __init__(self, steps: list[Step], max_tokens: int) -> None:
        self._steps = steps
        self._max_tokens = max_tokens
        self._sampled = 0
        self.is_over = False

    def __aiter__(self) -> "_Playback":
        return self

    async def __anext__(self) -> EngineEvent:
        while self._steps and not isinstance(self._steps[0], EngineEvent | BaseException):
            step = self._steps[0]
            if isinstance(step, anyio.Event):
                await step.wait()
            else:
                step()
            self._steps.pop(0)
        await anyio.lowlevel.checkpoint()
        if self.is_over or not self._steps:
            self.is_over = True
            raise StopAsyncIteration
        return self._event_of(self._steps.pop(0))

    def _event_of(self, step: Step) -> EngineEvent:
        if isinstance(step, BaseException):
            self.is_over = True
            raise step
        if isinstance(step, Token):
            self._sampled += 1
            if self._sampled == self._max_tokens:
                self._steps = [Finished("length", self._sampled)]
        self.is_over = isinstance(step, Finished)
        return step


CONTROLS = {"<|system|>": 256, "<|user|>": 257, "<|assistant|>": 258, "<|end|>": 259}
STOP_TOKEN = CONTROLS["<|end|>"]
_LITERAL = "\ue000"
_PIECES = re.compile(
    f"{_LITERAL}(.)|({'|'.join(map(re.escape, CONTROLS))})|([^{_LITERAL}<]+|<)", re.DOTALL
)


class ByteDetokenizer:
    """Decodes bytes incrementally; returns whole characters."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token_id: int) -> str:
        return self._decoder.decode(bytes([token_id]))

    def flush(self) -> str:
        return self._decoder.decode(b"", final=True)


@dataclass(frozen=True)
class ByteTokenizer:
    """A token per byte of UTF-8, and four control tokens."""

    # How the template treats system turns: "anywhere" renders all, "first" refuses them after the
    # first turn, "never" refuses all, "ignored" drops those after the first turn, as some real
    # templates do.
    system_turns: str = "anywhere"

    @property
    def controls(self) -> Mapping[str, int]:
        return CONTROLS

    @property
    def text_start(self) -> tuple[int, ...]:
        return ()

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        variables: Mapping[str, object] | None = None,
    ) -> str:
        rendered = "".join(self._turn(index, turn) for index, turn in enumerate(messages))
        is_open = (variables or {}).get("add_generation_prompt", True)
        return rendered + ("<|assistant|>\n" if is_open else "")

    def _turn(self, index: int, turn: Mapping[str, object]) -> str:
        role = turn["role"]
        if f"<|{role}|>" not in CONTROLS:
            return ""
        if role == "system" and self.system_turns != "anywhere":
            if index > 0 and self.system_turns == "ignored":
                return ""
            if index > 0 or self.system_turns == "never":
                raise InvalidRequestError("this template takes no system turn here")
        return f"<|{role}|>\n{turn['content']}<|end|>\n"

    def has_token(self, token_id: int) -> bool:
        return token_id < 256 or token_id in CONTROLS.values()

    def bytes_of(self, token_id: int) -> bytes | None:
        return bytes([token_id]) if token_id < 256 else None

    def name_of(self, token_id: int) -> str:
        return next((name for name, token in CONTROLS.items() if token == token_id), "")

    def neutralize(self, text: str) -> str:
        return re.sub(f"[<{_LITERAL}]", lambda match: _LITERAL + match[0], text)

    def encode(self, rendered: str) -> list[int]:
        return [token for match in _PIECES.finditer(rendered) for token in _tokens(match)]

    def encode_with_edges(self, rendered: str) -> tuple[list[int], list[tuple[int, int]]]:
        tokens: list[int] = []
        edges: list[tuple[int, int]] = []
        for match in _PIECES.finditer(rendered):
            tokens += _tokens(match)
            if match[2]:
                edges.append((match.end(), len(tokens)))
        return tokens, edges

    def detokenizer(
        self, preceding: Sequence[int] = (), marks: Collection[str] = ()
    ) -> ByteDetokenizer:
        return ByteDetokenizer()

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of tokens, with the names of control tokens."""
        names = {token: name for name, token in CONTROLS.items()}
        return b"".join(
            names[token].encode() if token in names else bytes([token]) for token in tokens
        ).decode()


def _tokens(match: re.Match[str]) -> list[int]:
    literal, control, plain = match.groups()
    return [CONTROLS[control]] if control else list((literal or plain).encode())


def served_model(
    *,
    name: str = "bytes",
    context_tokens: int = 4096,
    tokenizer: ByteTokenizer | None = None,
    dialect: Dialect = plain.DIALECT,
    sight: Sight | None = None,
) -> ServedModel:
    return ServedModel(
        name=name,
        repo=f"someone/{name}",
        folder=Path("/nowhere"),
        context_tokens=context_tokens,
        stop_tokens=frozenset({STOP_TOKEN}),
        size_bytes=1,
        created_at=1_700_000_000,
        tokenizer=tokenizer or ByteTokenizer(),
        dialect=dialect,
        sight=sight,
    )
