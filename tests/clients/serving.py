"""A real server for clients that live outside the test's event loop: the scripted engine behind uvicorn on loopback.

It runs in a thread of its own, so a blocking client or another process can talk to it.
"""

import json
import re
from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from anyio.from_thread import start_blocking_portal

from pensieve.dialects.dialect import ToolCall
from pensieve.dialects.families import plain
from pensieve.dialects.format_calls import format_calls
from pensieve.engine.generation import EngineEvent, EngineHealth, Generation
from pensieve.paths import under_home
from tests.fakes import ByteTokenizer, ScriptedEngine, says
from tests.server.serving import SETTINGS, app_of, listening


@contextmanager
def serving(engine: ScriptedEngine, home: Path, **model: object) -> Generator[str]:
    """The address of a server whose files and batches lie in `home`."""
    app = app_of(engine, settings=replace(SETTINGS, paths=under_home(home)), **model)
    with (
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(listening(app)) as url,
    ):
        yield url


@dataclass
class RememberingEngine:
    """Says the same again and again, and finds in its cache what earlier prompts began with."""

    text: str
    health: EngineHealth = field(default_factory=lambda: EngineHealth("ready", worker_pid=1))
    seen: list[tuple[int, ...]] = field(default_factory=list)

    @asynccontextmanager
    async def generate(self, generation: Generation) -> AsyncIterator[AsyncIterator[EngineEvent]]:
        prompt = tuple(generation.prompt_tokens)
        cached = max((_shared(prompt, before) for before in self.seen), default=0)
        self.seen.append(prompt)
        script = says(self.answer(generation), cached_tokens=min(cached, len(prompt) - 1))
        async with ScriptedEngine([script]).generate(generation) as events:
            yield events

    def answer(self, generation: Generation) -> str:
        """What it says to this."""
        return self.text


@dataclass
class ToolUsingEngine(RememberingEngine):
    """Calls the first of the tools at hand with an input that is written down here, and answers in words after a result.

    inputs: by the tool's name; "…" stands for what the last message has in quotes. form: its answer where one is asked for.
    """

    inputs: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    form: Mapping[str, object] = field(default_factory=dict)

    def answer(self, generation: Generation) -> str:
        last = ByteTokenizer().decode(generation.prompt_tokens).rpartition("<|user|>")[2]
        if generation.grammar is None or "<tool_result" in last:
            return self.text
        called = [name for name in self.inputs if f'{name}\\"' in generation.grammar.lark]
        if not called:
            return json.dumps(self.form)
        quoted = next(iter(re.findall("'(.*?)'", last)), "")
        given = {
            key: quoted if value == "…" else value for key, value in self.inputs[called[0]].items()
        }
        return format_calls(plain.DIALECT.calls, [ToolCall(called[0], given)])


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    length = min(len(one), len(other))
    return next((at for at in range(length) if one[at] != other[at]), length)


def prompts(engine: ScriptedEngine) -> list[str]:
    """What the engine was asked, as text with the control tokens by name."""
    return [ByteTokenizer().decode(asked.prompt_tokens) for asked in engine.generations]
