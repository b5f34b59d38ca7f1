"""Whether clients that mean no good keep others waiting: 300 that never end their head, 50 that stop reading.

usage: python -m benchmarks.patience

The real server with its real patience, before an engine that only talks, in a process of its own. What good clients wait for
their answers is told before and meanwhile, in turns; read the ratios.
"""

# pyright: basic

import asyncio
import json
import socket
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.front_end import KEY, SMALL, Client, serving, timed
from tests.embedded_model import embedded_model_folder

SLOW, GOOD, DEAF = 300, 10, 50


async def good_ones(port: int) -> list[float]:
    """Seconds of small requests, by several clients at once, sorted."""
    clients = [await Client.at(port) for _ in range(GOOD)]
    body = json.dumps(SMALL).encode()
    times: list[float] = []

    async def ask(client: Client) -> None:
        times.extend([await timed(lambda: client.ask(body)) for _ in range(30)])

    await asyncio.gather(*map(ask, clients))
    return sorted(times)


def told(times: list[float]) -> str:
    p99 = times[int(0.99 * len(times))]
    return f"median {statistics.median(times) * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms"


async def slow_heads(port: int) -> None:
    print(f"before: {told(await good_ones(port))}")
    began_at = time.perf_counter()
    slow = []
    for _ in range(SLOW):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /v1/messages HTTP/1.1\r\nhost:")
        slow.append((reader, writer))
    print(f"beside {SLOW} slow heads: {told(await good_ones(port))}")
    await asyncio.gather(*(reader.read() for reader, _ in slow))
    print(f"all {SLOW} closed {time.perf_counter() - began_at:.1f} s after the first began")
    for _, writer in slow:
        writer.close()


async def deaf_readers(port: int) -> None:
    watcher = await Client.at(port)
    before_mb = float(await watcher.ask(b"{}", "/peak"))
    print(f"before: {told(await good_ones(port))}")
    body = json.dumps(SMALL | {"max_tokens": 2000, "stream": True}).encode()
    head = (
        f"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\nx-api-key: {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    deaf = []
    for _ in range(DEAF):
        reader = socket.socket()
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(("127.0.0.1", port))
        reader.sendall(head.encode() + body)
        deaf.append(reader)
    await asyncio.sleep(3)  # until all that fits on the way to them is written
    print(f"beside {DEAF} that stopped reading: {told(await good_ones(port))}")
    more_mb = float(await watcher.ask(b"{}", "/peak")) - before_mb
    print(f"{more_mb:.0f} MB more memory")
    for reader in deaf:
        reader.close()


async def main() -> None:
    home = Path(tempfile.gettempdir()) / "pensieve-bench"
    embedded_model_folder(home)
    for measure in (slow_heads, deaf_readers):
        with serving(home) as port:
            await good_ones(port)
            await measure(port)


if __name__ == "__main__":
    asyncio.run(main())
