"""Response time (ms) of well-behaved clients next to slow ones.

usage: python -m benchmarks.slow_clients
Slow are 300 clients that never finish their request head, and 50 that stop reading a stream. The
real application with its real timeouts and a scripted engine runs in another process. Ten clients
send small requests before and during the slow ones; compare the ratios.
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
from tests.support.embedded_model import embedded_model_folder

SLOW_HEADS, GOOD, SLOW_READERS = 300, 10, 50


async def response_times(port: int) -> list[float]:
    """Return the sorted seconds of small requests by several clients at once."""
    clients = [await Client.at(port) for _ in range(GOOD)]
    body = json.dumps(SMALL).encode()
    times: list[float] = []

    async def post_often(client: Client) -> None:
        times.extend([await timed(lambda: client.post(body)) for _ in range(30)])

    await asyncio.gather(*map(post_often, clients))
    return sorted(times)


def summary(times: list[float]) -> str:
    p99 = times[int(0.99 * len(times))]
    return f"median {statistics.median(times) * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms"


async def slow_heads(port: int) -> None:
    print(f"before: {summary(await response_times(port))}")
    began_at = time.perf_counter()
    slow = []
    for _ in range(SLOW_HEADS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /v1/messages HTTP/1.1\r\nhost:")
        slow.append((reader, writer))
    print(f"with {SLOW_HEADS} slow heads: {summary(await response_times(port))}")
    await asyncio.gather(*(reader.read() for reader, _ in slow))
    print(f"all {SLOW_HEADS} closed {time.perf_counter() - began_at:.1f} s after the first started")
    for _, writer in slow:
        writer.close()


async def slow_readers(port: int) -> None:
    watcher = await Client.at(port)
    before_mb = float(await watcher.post(b"{}", "/peak"))
    print(f"before: {summary(await response_times(port))}")
    body = json.dumps(SMALL | {"max_tokens": 2000, "stream": True}).encode()
    head = (
        f"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\nx-api-key: {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    readers = []
    for _ in range(SLOW_READERS):
        reader = socket.socket()
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(("127.0.0.1", port))
        reader.sendall(head.encode() + body)
        readers.append(reader)
    await asyncio.sleep(3)  # until the buffers towards them are full
    print(f"with {SLOW_READERS} that stopped reading: {summary(await response_times(port))}")
    more_mb = float(await watcher.post(b"{}", "/peak")) - before_mb
    print(f"{more_mb:.0f} MB more memory")
    for reader in readers:
        reader.close()


async def main() -> None:
    home = Path(tempfile.gettempdir()) / "pensieve-bench"
    embedded_model_folder(home)
    for measure in (slow_heads, slow_readers):
        with serving(home) as port:
            await response_times(port)  # warm-up
            await measure(port)


if __name__ == "__main__":
    asyncio.run(main())
