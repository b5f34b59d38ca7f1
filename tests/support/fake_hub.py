"""A Hugging Face Hub on loopback for the real huggingface_hub client: one model, with faults.

Serves what the client uses: the model's description with sizes and hashes, and its files by range,
large ones after a redirect as on the real Hub. Counts every byte of content that it sends.
"""

import hashlib
import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CHUNK_BYTES = 16384


@dataclass
class FakeHub:
    """The content and faults of the Hub; all may be changed between requests."""

    repo: str
    files: dict[str, bytes]
    commit: str = COMMIT
    # The model's pipeline tag.
    task: str = "text-generation"
    # The commit of the main branch, if not `commit`.
    head: str | None = None
    # Ends the next transfers of a file at these positions in the file, one after the other.
    cuts: dict[str, list[int]] = field(default_factory=dict)
    is_cut_by_reset: bool = False
    # Stops sending a file at this position, with the connection open.
    stalls: dict[str, int] = field(default_factory=dict)
    # Content that differs from the description.
    altered: dict[str, bytes] = field(default_factory=dict)
    # The statuses of the next responses.
    refusals: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    has_ranges: bool = True
    # Redirects requests of files to themselves.
    is_circular: bool = False
    # The response of a captive portal to every request.
    portal: bytes | None = None
    # Redirects requests of files to this URL.
    moved_to: str | None = None
    # Writes a raw response to paths that start with a key.
    raw: dict[str, Callable[[IO[bytes]], None]] = field(default_factory=dict)
    # The received authorization headers, with their paths.
    tokens: list[tuple[str, str]] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)
    requests: list[str] = field(default_factory=list)
    user_agents: set[str] = field(default_factory=set)
    endpoint: str = ""
    released: threading.Event = field(default_factory=threading.Event)

    def description(self) -> dict[str, Any]:
        """Return the response of `/api/models/<repo>?blobs=true`."""
        siblings = [self._sibling(name, content) for name, content in self.files.items()]
        return {
            "id": self.repo,
            "sha": self.head or self.commit,
            "pipeline_tag": self.task,
            "siblings": siblings,
        }

    def _sibling(self, name: str, content: bytes) -> dict[str, Any]:
        blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False)
        sibling: dict[str, Any] = {
            "rfilename": name,
            "size": len(content),
            "blobId": blob.hexdigest(),
        }
        if is_large(name):
            sha256 = hashlib.sha256(content).hexdigest()
            sibling["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 130}
        return sibling


def is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the content of a folder's files."""
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    """Serve `hub` on a free port of loopback and set its `endpoint`."""

    class Handler(_Handler):
        served = hub

    with _Server(("127.0.0.1", 0), Handler) as server:
        hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            hub.released.set()
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    def shutdown_request(self, request: Any) -> None:
        """Close without shutdown, so that a reset is a reset."""
        self.close_request(request)


class _Handler(BaseHTTPRequestHandler):
    served: FakeHub

    def do_GET(self) -> None:
        hub = self.served
        path = unquote(urlsplit(self.path).path)
        hub.requests.append(path)
        hub.user_agents.add(self.headers.get("user-agent", ""))
        if token := self.headers.get("authorization"):
            hub.tokens.append((path, token))
        if write := next((hub.raw[start] for start in hub.raw if path.startswith(start)), None):
            self.close_connection = True
            with suppress(ConnectionError):
                write(self.wfile)
            return
        self._serve(hub, path)

    def _serve(self, hub: FakeHub, path: str) -> None:
        if hub.moved_to is not None and not path.startswith("/api/"):
            self._answer(302, b"", {"location": hub.moved_to})
        elif hub.portal is not None:
            self._answer(200, hub.portal, {"content-type": "text/html"})
        elif hub.refusals:
            self._answer(hub.refusals.pop(0), b"{}", hub.headers)
        elif hub.is_circular and not path.startswith("/api/"):
            self._answer(302, b"", {"location": f"{hub.endpoint}{self.path}"})
        else:
            self._serve_repository(hub, path)

    def _serve_repository(self, hub: FakeHub, path: str) -> None:
        resolve = f"/{hub.repo}/resolve/{hub.commit}/"
        if path.startswith(f"/api/models/{hub.repo}"):
            self._answer(
                200, json.dumps(hub.description()).encode(), {"content-type": "application/json"}
            )
        elif path.startswith(resolve) and is_large(name := path.removeprefix(resolve)):
            self._answer(
                302, b"", {"location": f"{hub.endpoint}/cdn/{name}", "x-repo-commit": hub.commit}
            )
        elif path.startswith((resolve, "/cdn/")):
            self._send_file(path.removeprefix(resolve).removeprefix("/cdn/"))
        else:
            is_other_commit = path.startswith(f"/{hub.repo}/resolve/")
            code = "RevisionNotFound" if is_other_commit else "RepoNotFound"
            self._answer(404, b"{}", {"x-error-code": code})

    def _send_file(self, name: str) -> None:
        hub = self.served
        if name not in hub.files:
            self._answer(404, b"{}", {"x-error-code": "EntryNotFound"})
            return
        content = hub.altered.get(name, hub.files[name])
        requested = self.headers.get("range", "") if hub.has_ranges else ""
        start = int(requested.removeprefix("bytes=").partition("-")[0]) if requested else 0
        self.send_response(206 if requested else 200)
        if requested:
            self.send_header("content-range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("content-length", str(len(content) - start))
        self.end_headers()
        with suppress(ConnectionError):
            self._send_content(name, content, start)

    def _send_content(self, name: str, content: bytes, start: int) -> None:
        hub = self.served
        cuts = hub.cuts.get(name)
        end = cuts.pop(0) if cuts else len(content)
        stop = min(end, hub.stalls.get(name, end))
        for position in range(start, stop, CHUNK_BYTES):
            piece = content[position : min(position + CHUNK_BYTES, stop)]
            # Counted before the client can receive the end of the file.
            hub.sent[name] += len(piece)
            self.wfile.write(piece)
        if name in hub.stalls:
            hub.released.wait()
        if end < len(content) and hub.is_cut_by_reset:
            # A socket that is closed with a linger time of 0 resets its connection.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing."""
