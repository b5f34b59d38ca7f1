"""Small honest stand-ins that any test may hand in: an engine that says what its script says, a tokenizer over bytes."""

import codecs
import re
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
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
from pensieve.models.served_model import ServedModel

Step = EngineEvent | BaseException | anyio.Event | Callable[[], object]


class RustPanic(BaseException):
    """As pyo3 raises a library's panic: no `Exception`, so that what catches those lets it pass."""


def says(text: str, *, cached_tokens: int = 0) -> list[Step]:
    """A script: the bytes of `text` as tokens, then the stop token."""
    spoken = text.encode()
    tokens = [Token(byte) for byte in spoken]
    return [Started(cached_tokens), *tokens, Finished("stop_token", len(spoken) + 1)]


@dataclass
class ScriptedEngine:
    """Plays one script per generation, the last one again and again. An event in a script is waited for, a callable called.

    A script longer than max_tokens is cut there, as an engine would. `left` is set when a block is left before its end.
    """

    scripts: Iterable[Sequence[Step]]
    health: EngineHealth = field(default_factory=lambda: EngineHealth("ready", worker_pid=1))
    refusal: BaseException | None = None
    generations: list[Generation] = field(default_factory=list)
    left: anyio.Event = field(default_factory=anyio.Event)

    def __post_init__(self) -> None:
        self._coming = list(self.scripts)

    @asynccontextmanager
    async def generate(self, generation: Generation) -> AsyncIterator[AsyncIterator[EngineEvent]]:
        if self.refusal is not None:
            raise self.refusal
        self.generations.append(generation)
        script = self._coming.pop(0) if len(self._coming) > 1 else self._coming[0]
        played = _Played(list(script), generation.max_tokens)
        try:
            yield played
        finally:
            if not played.is_over:
                self.left.set()


class _Played:
    """One script being played; like the real engine's events, a wait for one can be cancelled and taken up again."""

    def __init__(self, steps: list[Step], max_tokens: int) -> None:
        self._steps = steps
        self._max_tokens = max_tokens
        self._sampled = 0
        self.is_over = False

    def __aiter__(self) -> "_Played":
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
        return self._take(self._steps.pop(0))

    def _take(self, step: Step) -> EngineEvent:
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
    """Bytes to text as they come; a character is said when it is whole."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token_id: int) -> str:
        return self._decoder.decode(bytes([token_id]))

    def flush(self) -> str:
        return self._decoder.decode(b"", final=True)


@dataclass(frozen=True)
class ByteTokenizer:
    """A token per byte of UTF-8, and four control tokens. `system_turns`: what its template does with them.

    "anywhere" writes them all, "first" refuses those after the first turn, "never" refuses all, "ignored" drops those
    after the first turn without a word, as some real templates do.
    """

    system_turns: str = "anywhere"

    @property
    def controls(self) -> Mapping[str, int]:
        return CONTROLS

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        variables: Mapping[str, object] | None = None,
    ) -> str:
        written = "".join(self._turn(index, turn) for index, turn in enumerate(messages))
        is_open = (variables or {}).get("add_generation_prompt", True)
        return written + ("<|assistant|>\n" if is_open else "")

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

    def neutralize(self, text: str) -> str:
        return re.sub(f"[<{_LITERAL}]", lambda found: _LITERAL + found[0], text)

    def encode(self, rendered: str) -> list[int]:
        return [token for found in _PIECES.finditer(rendered) for token in _tokens(found)]

    def encode_with_edges(self, rendered: str) -> tuple[list[int], list[tuple[int, int]]]:
        tokens: list[int] = []
        edges: list[tuple[int, int]] = []
        for found in _PIECES.finditer(rendered):
            tokens += _tokens(found)
            if found[2]:
                edges.append((found.end(), len(tokens)))
        return tokens, edges

    def detokenizer(
        self, preceding: Sequence[int] = (), marks: Collection[str] = ()
    ) -> ByteDetokenizer:
        return ByteDetokenizer()

    def decode(self, tokens: Iterable[int]) -> str:
        """What the tokens say, control tokens by name."""
        names = {token: name for name, token in CONTROLS.items()}
        return b"".join(
            names[token].encode() if token in names else bytes([token]) for token in tokens
        ).decode()


def _tokens(found: re.Match[str]) -> list[int]:
    literal, control, plain = found.groups()
    return [CONTROLS[control]] if control else list((literal or plain).encode())


def served_model(
    *,
    name: str = "bytes",
    context_tokens: int = 4096,
    tokenizer: ByteTokenizer | None = None,
    dialect: Dialect = plain.DIALECT,
) -> ServedModel:
    """A served model over bytes."""
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
    )
