"""Shared by the tests of message batches: entries, a clock, and answers without a model."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import anyio.lowlevel

from pensieve.api.batches import BatchEntry
from pensieve.api.messages.message import Message, TextContent, Usage


def entries(custom_ids: Iterable[str], **params: object) -> list[BatchEntry]:
    return [
        BatchEntry(custom_id=custom_id, params={"text": custom_id, **params})
        for custom_id in custom_ids
    ]


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

    async def __call__(self, params: bytes) -> Message:
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
