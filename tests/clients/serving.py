"""A real server with a scripted engine, for clients outside the test's event loop.

It runs in its own thread, so that a blocking client or another process can connect to it.
"""

import json
import re
from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from anyio.from_thread import start_blocking_portal

from pensieve.dialects.dialect import ToolCall
from pensieve.dialects.families import plain
from pensieve.dialects.format_calls import format_calls
from pensieve.engine.generation import EngineEvent, EngineHealth, Generation
from pensieve.paths import under_home
from tests.server.serving import SETTINGS, app_of, listening
from tests.support.fakes import ByteTokenizer, ScriptedEngine, says


@contextmanager
def serving(
    engine: ScriptedEngine, home: Path, *middleware: type, **model: object
) -> Generator[str]:
    """Yield the URL of a server that stores files and batches in `home`."""
    app = app_of(engine, settings=replace(SETTINGS, paths=under_home(home)), **model)
    for each in middleware:
        app.add_middleware(each)
    with (
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(listening(app)) as url,
    ):
        yield url


@dataclass
class CachingEngine:
    """An engine with one answer; its cache has earlier prompts and their answers."""

    text: str
    health: EngineHealth = field(default_factory=lambda: EngineHealth("ready", worker_pid=1))
    earlier: list[tuple[int, ...]] = field(default_factory=list)

    def expect(self) -> AbstractContextManager[None]:
        return nullcontext()

    @asynccontextmanager
    async def generate(self, generation: Generation) -> AsyncIterator[AsyncIterator[EngineEvent]]:
        prompt = tuple(generation.prompt_tokens)
        cached = max((_common_prefix(prompt, other) for other in self.earlier), default=0)
        answer = self.answer_to(generation)
        self.earlier.append((*prompt, *answer.encode()))
        script = says(answer, cached_tokens=min(cached, len(prompt) - 1))
        async with ScriptedEngine([script]).generate(generation) as events:
            yield events

    def answer_to(self, generation: Generation) -> str:
        return self.text


@dataclass
class ToolCallingEngine(CachingEngine):
    """Calls the first known tool with its input; answers with text after a tool result."""

    # By the tool's name; "…" stands for the quoted part of the last message.
    inputs: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    # The answer to a request with an output format.
    structured_output: Mapping[str, object] = field(default_factory=dict)

    def answer_to(self, generation: Generation) -> str:
        last = ByteTokenizer().decode(generation.prompt_tokens).rpartition("<|user|>")[2]
        if generation.grammar is None or "<tool_result" in last:
            return self.text
        callable_tools = [name for name in self.inputs if f'{name}\\"' in generation.grammar.lark]
        if not callable_tools:
            return json.dumps(self.structured_output)
        quoted = next(iter(re.findall("'(.*?)'", last)), "")
        name = callable_tools[0]
        arguments = {
            key: quoted if value == "…" else value for key, value in self.inputs[name].items()
        }
        return format_calls(plain.DIALECT.calls, [ToolCall(name, arguments)])


def _common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    length = min(len(one), len(other))
    return next((at for at in range(length) if one[at] != other[at]), length)


def prompts(engine: ScriptedEngine) -> list[str]:
    """Return the prompts of all generations, with the names of control tokens."""
    return [ByteTokenizer().decode(each.prompt_tokens) for each in engine.generations]
