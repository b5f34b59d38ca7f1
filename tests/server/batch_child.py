"""A process that answers batches in a given folder and prints each answer, until it is done or
killed.
"""

import sys
from pathlib import Path

import anyio

from pensieve.api.messages.message import Message
from pensieve.server.activity.registry import Activity
from pensieve.server.batches.registry import BatchRegistry
from pensieve.server.batches.store import BatchStore
from pensieve.server.batches.worker import BatchWorker
from pensieve.server.keys.limits import KeyLimiter
from pensieve.server.messages.completion import OnBegin
from tests.server.batch_cases import create, message

REQUESTS = 60


async def main(folder: Path) -> None:
    registry = BatchRegistry(BatchStore(folder))

    async def answer(params: bytes, _key_name: str, _on_begin: OnBegin) -> Message:
        await anyio.lowlevel.checkpoint()
        sys.stdout.write("answered\n")
        sys.stdout.flush()
        return message(params.decode() * 500)

    if not await registry.list_batches():
        await create(registry, map(str, range(REQUESTS)))
    async with BatchWorker(registry, answer, Activity(), KeyLimiter(folder / "usage")).working():
        while any(batch.ended_at is None for batch in await registry.list_batches()):
            await anyio.lowlevel.checkpoint()


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]))
