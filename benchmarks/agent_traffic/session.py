"""Shapes of agent traffic, and the requests of a client that follows one. For benchmarks/replay.py.

A shape is a table of turns (`coding_session.csv`), in tokens:

- `role`: `main`, `agent` for a sub-agent, `side` for titles and the like.
- `system`: the parts of a new conversation's system text, as `name:tokens`. Conversations that
  begin with the same parts share that prefix. Empty: the conversation continues.
- `new`: the message that the turn appends. `answer`: the most that it asks for.
- `starts`: `after` all turns before it and a pause; `with` the turn before it; `during` the answer
  of the turn before it, once that has begun to stream.
- The kind `kill` ends the server with SIGKILL after the turns before it and a pause.

Lengths were observed at a coding agent of 2026-11: 8900 tokens of tools and instructions are the
same in every folder and 10 100 in one folder, a sub-agent shares nothing with the main
conversation, and each turn appends to the last one.
"""

import csv
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

Wire = Literal["anthropic", "openai"]
Role = Literal["main", "agent", "side"]
Starts = Literal["after", "with", "during"]
Body = dict[str, Any]
Words = Callable[[int, random.Random], str]  # random words of so many tokens

SESSION = Path(__file__).with_name("coding_session.csv")
PATHS: Mapping[Wire, str] = {"anthropic": "/v1/messages", "openai": "/v1/chat/completions"}
MIN_ANSWER_TOKENS = 8
KILL = "kill"


@dataclass(frozen=True)
class Part:
    """A part of a system text."""

    name: str
    tokens: int


@dataclass(frozen=True)
class Turn:
    kind: str
    conversation: str
    role: Role
    system: tuple[Part, ...]
    new_tokens: int
    answer_tokens: int
    starts: Starts = "after"
    pause_s: float = 0.0

    @property
    def label(self) -> str:
        return f"{self.kind}, {self.conversation}"

    def scaled(self, scale: float) -> "Turn":
        return replace(
            self,
            system=tuple(replace(part, tokens=_scaled(part.tokens, scale)) for part in self.system),
            new_tokens=_scaled(self.new_tokens, scale),
            answer_tokens=max(MIN_ANSWER_TOKENS, _scaled(self.answer_tokens, scale)),
            pause_s=self.pause_s * scale,
        )


@dataclass(frozen=True)
class Step:
    """Turns that run together, after a pause."""

    turns: tuple[Turn, ...]
    kill_after_s: float | None = None  # after their answers; None: the server lives

    @property
    def pause_s(self) -> float:
        return self.turns[0].pause_s


def _scaled(tokens: int, scale: float) -> int:
    return max(1, round(tokens * scale))


def read_turns(lines: Iterable[str]) -> list[Turn]:
    """Read a shape's table."""
    return [_turn(row) for row in csv.DictReader(lines)]


def _turn(row: Mapping[str, str]) -> Turn:
    parts = (part.partition(":") for part in row["system"].split())
    return Turn(
        row["kind"],
        row["conversation"],
        _one_of(get_args(Role), row["role"] or "main"),
        tuple(Part(name, int(tokens)) for name, _, tokens in parts),
        int(row["new"] or 0),
        int(row["answer"] or 0),
        _one_of(get_args(Starts), row["starts"] or "after"),
        float(row["pause_s"] or 0),
    )


def _one_of(known: Sequence[Any], name: str) -> Any:
    if name not in known:
        raise ValueError(f"{name!r} is none of {', '.join(known)}")
    return name


def steps_of(turns: Sequence[Turn]) -> list[Step]:
    """Group turns that run together."""
    steps: list[Step] = []
    for turn in turns:
        if turn.kind == KILL:
            steps[-1] = replace(steps[-1], kill_after_s=turn.pause_s)
        elif turn.starts == "after":
            steps.append(Step((turn,)))
        else:
            steps[-1] = replace(steps[-1], turns=(*steps[-1].turns, turn))
    return steps


@dataclass(frozen=True)
class Conversation:
    """What a client sends in a request, without the server's name for things."""

    system: tuple[str, ...]
    messages: tuple[str, ...] = ()  # of the user and the assistant, alternating
    tokens: int = 0

    def add(self, text: str, tokens: int) -> "Conversation":
        return replace(self, messages=(*self.messages, text), tokens=self.tokens + tokens)


@dataclass(frozen=True)
class Prompt:
    """The prompt of one turn; tokens are those of the shape."""

    conversation: Conversation
    tokens: int
    shared_tokens: int  # at its beginning, sent or answered before


class Client:
    """Builds the prompts of a session. Owns its conversations."""

    def __init__(self, words: Words, seed: int = 0) -> None:
        self._words, self._seed = words, seed
        self._conversations: dict[str, Conversation] = {}
        self._systems: list[tuple[Part, ...]] = []

    def ask(self, turn: Turn) -> Prompt:
        """Add the turn's message to its conversation, and return the whole."""
        shared = self._shared_tokens(turn)
        before = self._conversations.get(turn.conversation) or self._begin(turn.system)
        text = self._text(f"{turn.conversation} {len(before.messages)}", turn.new_tokens)
        asked = before.add(text, turn.new_tokens)
        self._conversations[turn.conversation] = asked
        return Prompt(asked, asked.tokens, shared)

    def answered(self, turn: Turn, text: str) -> None:
        """Add the answer, as the server wrote it: agents send it back in their next request."""
        asked = self._conversations[turn.conversation]
        # Neither API takes empty text.
        self._conversations[turn.conversation] = asked.add(text or "-", turn.answer_tokens)

    def _begin(self, system: tuple[Part, ...]) -> Conversation:
        if not system:
            raise ValueError("a conversation begins without a system text")
        self._systems.append(system)
        texts = tuple(self._text(part.name, part.tokens) for part in system)
        return Conversation(texts, tokens=sum(part.tokens for part in system))

    def _shared_tokens(self, turn: Turn) -> int:
        if turn.conversation in self._conversations:
            return self._conversations[turn.conversation].tokens
        return max((_common_tokens(turn.system, other) for other in self._systems), default=0)

    def _text(self, name: str, tokens: int) -> str:
        return self._words(tokens, random.Random(f"{self._seed} {name}"))


def _common_tokens(parts: Sequence[Part], others: Sequence[Part]) -> int:
    tokens = 0
    for part, other in zip(parts, others, strict=False):
        if part != other:
            break
        tokens += part.tokens
    return tokens


def headers_of(turn: Turn) -> dict[str, str]:
    """Return the headers by which Claude Code marks sub-agents and side requests."""
    session = {"x-claude-code-session-id": "replay"}
    match turn.role:
        case "main":
            return {}  # marked by its tools, which are left out here
        case "agent":
            return session | {"x-claude-code-agent-id": turn.conversation}
        case "side":
            return session


def body_of(wire: Wire, conversation: Conversation, max_tokens: int, model: str) -> Body:
    """Return a request's body, with which the answer is the same each time."""
    common = {"model": model, "max_tokens": max_tokens, "stream": True, "temperature": 0}
    if wire == "anthropic":
        return common | _anthropic(conversation)
    return common | _openai(conversation)


def _anthropic(conversation: Conversation) -> Body:
    """Return the fields of the Messages API, with the cache breakpoints that agents set."""
    *earlier, last = _messages(conversation)
    return {
        "system": [_cached(text) for text in conversation.system],
        "messages": [*earlier, last | {"content": [_cached(last["content"])]}],
    }


def _cached(text: str) -> Body:
    return {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}


def _openai(conversation: Conversation) -> Body:
    system = {"role": "system", "content": "\n\n".join(conversation.system)}
    return {
        "messages": [system, *_messages(conversation)],
        "stream_options": {"include_usage": True},
    }


def _messages(conversation: Conversation) -> list[Body]:
    return [
        {"role": ("user", "assistant")[at % 2], "content": text}
        for at, text in enumerate(conversation.messages)
    ]
