"""Shared by the tests of message batches: bodies, a clock, and answers without a model."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import anyio.lowlevel

from pensieve.api.batch_reading import LocatedEntry, read_batch
from pensieve.api.messages.message import Message, TextContent, Usage
from pensieve.server.batches.registry import BatchRegistry
from pensieve.server.batches.store import Batch
from pensieve.server.messages.completion import OnBegin


def received(path: Path, custom_ids: Iterable[str], **params: object) -> Iterator[LocatedEntry]:
    """Write the body of a new batch to `path`, as the endpoint does; return its entries."""
    requests = [
        {"custom_id": custom_id, "params": {"text": custom_id, **params}}
        for custom_id in custom_ids
    ]
    body = json.dumps({"requests": requests}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    path.chmod(0o600)
    return read_batch(body)


async def create(registry: BatchRegistry, custom_ids: Iterable[str]) -> Batch:
    path = await registry.new_body()
    return await registry.create(path, received(path, custom_ids))


def message(text: str = "ok") -> Message:
    usage = Usage(input_tokens=1, output_tokens=1)
    return Message(id="msg_1", model="m", content=(TextContent(text=text),), usage=usage)


@dataclass
class Clock:
    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Answering:
    """Answers every request with a text.

    Items of `troubles` come first: errors are raised, events awaited.
    """

    troubles: list[BaseException | anyio.Event] = field(default_factory=list)
    received: list[bytes] = field(default_factory=list)
    max_running: int = 0
    running: int = 0

    async def __call__(self, params: bytes, _key_name: str, _on_begin: OnBegin) -> Message:
        self.received.append(params)
        self.running += 1
        self.max_running = max(self.max_running, self.running)
        try:
            await anyio.lowlevel.checkpoint()
            trouble = self.troubles.pop(0) if self.troubles else None
            if isinstance(trouble, BaseException):
                raise trouble
            if trouble is not None:
                await trouble.wait()
            return message()
        finally:
            self.running -= 1
