"""What tests of message batches share: entries, a clock, and answers without a model."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import anyio.lowlevel

from pensieve.api.batches import BatchEntry
from pensieve.api.messages.message import Message, TextContent, Usage


def entries(custom_ids: Iterable[str], **params: object) -> list[BatchEntry]:
    return [BatchEntry(custom_id=one, params={"text": one, **params}) for one in custom_ids]


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
    """Answers every request with a text; what is in `troubles` is raised first, an Event is waited for."""

    troubles: list[BaseException | anyio.Event] = field(default_factory=list)
    asked: list[bytes] = field(default_factory=list)
    most_at_once: int = 0
    at_once: int = 0

    async def __call__(self, params: bytes) -> Message:
        self.asked.append(params)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await anyio.lowlevel.checkpoint()
            trouble = self.troubles.pop(0) if self.troubles else None
            if isinstance(trouble, BaseException):
                raise trouble
            if trouble is not None:
                await trouble.wait()
            return message()
        finally:
            self.at_once -= 1
