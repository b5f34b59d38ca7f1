"""A malicious Hub: every answer is bounded, checked, and refused with one sentence."""

import gzip
import json
from collections.abc import Callable, Iterator
from itertools import count, repeat
from pathlib import Path
from typing import IO, Any

import pytest

from pensieve.errors import ModelError, ModelUnavailableError
from pensieve.models.catalog.sources import HubModel
from pensieve.models.fetching.download import ATTEMPTS, Download
from pensieve.models.fetching.hub import Hub
from pensieve.models.fetching.hub_exchange import (
    MIN_WINDOW_BYTES,
    BadAnswerError,
    SlowAnswerError,
    exchange,
    is_local,
    paced,
)
from pensieve.models.fetching.hub_listing import read_listing
from pensieve.models.folder.snapshot import ModelFolder, folder_of
from tests.models.recorded_progress import RecordedProgress
from tests.support.fake_hub import COMMIT, FakeHub, files_of, serving

REPO = "mlx-community/tiny-phi3"
MODEL = HubModel(REPO, REPO)
WEIGHTS = {"rfilename": "model.safetensors", "size": 5, "blobId": "a" * 40}
OK = b"HTTP/1.1 200 OK\r\n"
TOKEN = {"authorization": "Bearer secret"}


@pytest.fixture
def hub(tiny_phi3: ModelFolder) -> Iterator[FakeHub]:
    with serving(FakeHub(REPO, files_of(tiny_phi3.folder))) as serving_hub:
        yield serving_hub


def fails(hub: FakeHub, tmp_path: Path) -> ModelError:
    """Fetch without waiting; the partial model must not count as complete."""
    destination = folder_of(MODEL, tmp_path / "models")
    download = Download(Hub(hub.endpoint), RecordedProgress(), lambda _: None, lambda _: 1 << 40)
    with pytest.raises(ModelError) as failed:
        download.into(destination, MODEL)
    assert not destination.exists()
    assert "\n" not in failed.value.message
    assert len(failed.value.message) < 500
    assert failed.value.exit_code
    return failed.value


def listing(**fields: Any) -> bytes:
    return json.dumps({"sha": COMMIT, "siblings": [WEIGHTS], **fields}).encode()


def with_file(**fields: Any) -> bytes:
    return listing(siblings=[WEIGHTS | fields])


LISTINGS: dict[str, bytes] = {
    "no JSON": b"<html>",
    "a list": b"[]",
    "null": b"null",
    "deep": b"[" * 100_000,
    "a number of 5000 digits": b'{"sha": %s}' % (b"9" * 5000),
    "no commit": listing(sha=None),
    "a commit that leads elsewhere": listing(sha="../../main"),
    "a commit of numbers": listing(sha=5),
    "no files": listing(siblings=None),
    "files by name": listing(siblings={"a": 1}),
    "files of text": listing(siblings=["model.safetensors"]),
    "a file without a name": listing(siblings=[{"size": 5}]),
    "a name that is a list": with_file(rfilename=["model.safetensors"]),
    "too many files": listing(siblings=[{"rfilename": "a"}] * 20_001),
    "one file twice": listing(siblings=[WEIGHTS, WEIGHTS]),
    "one file twice on a Mac": listing(
        siblings=[
            WEIGHTS,
            WEIGHTS | {"rfilename": "Config.json"},
            WEIGHTS | {"rfilename": "config.json"},
        ]
    ),
    "a negative size": with_file(size=-1),
    "a size of 2^70": with_file(size=2**70),
    "a size of infinity": with_file(size=float("inf")),
    "a size that is text": with_file(size="5"),
    "a size that is true": with_file(size=True),
    "no size": with_file(size=None),
    "a large file without a size": with_file(lfs={}),
    "a large file that is text": with_file(lfs="5"),
    "a hash that is none": with_file(blobId="../../x"),
    "a large file's hash that is a list": with_file(lfs={"size": 5, "sha256": ["a" * 64]}),
}


@pytest.mark.parametrize("case", LISTINGS)
def test_an_invalid_listing_is_refused(case: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_listing(LISTINGS[case])


@pytest.mark.parametrize("case", ["no JSON", "a list", "a negative size", "files of text"])
def test_an_invalid_listing_raises_one_sentence(case: str, hub: FakeHub, tmp_path: Path) -> None:
    hub.raw["/api/"] = lambda out: answer(out, LISTINGS[case])
    assert "is not a Hub" in fails(hub, tmp_path).message


@pytest.mark.parametrize(
    "name",
    [
        "../model.safetensors",
        "/etc/model.safetensors",
        "a/model.safetensors",
        "model.safetensors/../../x.json",
        "..\\x.json",
        "a\0.json",
        "a\n.json",
        "é.json",
        "a" * 300 + ".json",
        "pensieve.json",
        "Pensieve.json",
        "model.py",
        "",
    ],
)
def test_other_files_than_a_models_are_ignored(name: str) -> None:
    read = read_listing(listing(siblings=[WEIGHTS, WEIGHTS | {"rfilename": name}]))
    assert [file.name for file in read.model_files] == ["model.safetensors"]


def answer(out: IO[bytes], body: bytes, head: bytes = b"") -> None:
    out.write(OK + head + b"content-length: %d\r\n\r\n%s" % (len(body), body))


def endlessly(out: IO[bytes], start: bytes, piece: bytes) -> None:
    """Send until the client disconnects."""
    out.write(start)
    for _ in count():
        out.write(piece)


ENDLESS: dict[str, tuple[Callable[[IO[bytes]], None], str]] = {
    "body": (lambda out: endlessly(out, OK + b"\r\n", b" " * 65536), "16 MiB"),
    "headers": (lambda out: endlessly(out, OK, b"x-more: of them\r\n"), "cannot be fetched"),
    "status": (lambda out: endlessly(out, b"HTTP/1.1 200 ", b"x" * 65536), "cannot be fetched"),
}


@pytest.mark.parametrize("case", ENDLESS)
def test_an_endless_answer_is_aborted(case: str, hub: FakeHub, tmp_path: Path) -> None:
    write, message = ENDLESS[case]
    hub.raw["/api/"] = write
    assert message in fails(hub, tmp_path).message


def test_endless_hints_are_aborted_at_the_deadline(hub: FakeHub) -> None:
    hint = b"HTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\n"
    hub.raw["/"] = lambda out: endlessly(out, b"", hint)
    with (
        pytest.raises(SlowAnswerError, match="head"),
        exchange(hub.endpoint, {}, hub.endpoint, head_timeout_s=0.1),
    ):
        pass


def test_a_compressed_answer_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(50_000_000), 1)
    hub.raw["/api/"] = lambda out: answer(out, bomb, b"content-encoding: gzip\r\n")
    assert "compressed" in fails(hub, tmp_path).message


@pytest.mark.parametrize(
    "head", [b"content-length: -5\r\n", b"content-length: " + b"9" * 5000 + b"\r\n", b""]
)
def test_a_file_longer_than_listed_is_refused(head: bytes, hub: FakeHub, tmp_path: Path) -> None:
    hub.raw["/cdn/"] = lambda out: endlessly(out, OK + head + b"\r\n", b" " * 65536)
    assert fails(hub, tmp_path).exit_code == 69


def test_another_range_than_requested_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    hub.cuts["model.safetensors"] = [100_000] + [0] * ATTEMPTS
    fails(hub, tmp_path)
    head = b"HTTP/1.1 206 OK\r\ncontent-range: bytes 5-9/10\r\ncontent-length: 5\r\n\r\nabcde"
    hub.raw["/cdn/"] = lambda out: out.write(head) and None
    assert "instead of" in fails(hub, tmp_path).message


@pytest.mark.parametrize("status", [400, 404, 500])
@pytest.mark.parametrize("body", [b"[]", b'{"errors": 5}', b'{"error": {}}', b"<html>"])
def test_the_body_of_an_error_is_not_read(
    status: int, body: bytes, hub: FakeHub, tmp_path: Path
) -> None:
    head = b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\n\r\n" % status
    hub.raw["/api/"] = lambda out: out.write(head + body) and None
    assert isinstance(fails(hub, tmp_path), ModelUnavailableError)


def test_a_token_is_not_sent_to_redirect_targets(hub: FakeHub) -> None:
    with serving(FakeHub(REPO, hub.files)) as other:
        hub.moved_to = f"{other.endpoint}/cdn/config.json"
        with exchange(f"{hub.endpoint}/file", TOKEN, hub.endpoint) as response:
            assert response.read() == hub.files["config.json"]
        assert hub.tokens == [("/file", TOKEN["authorization"])]
        assert other.requests == ["/cdn/config.json"]
        assert other.tokens == []


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1.2.3",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "localhost",
        "0.0.0.0",
        "169.254.169.254",
        "x.localhost",
    ],
)
def test_a_remote_hub_cannot_redirect_to_this_machine(host: str, hub: FakeHub) -> None:
    """The test answers the first request in place of a Hub at a documentation address."""
    hub.moved_to = f"http://{host}/"
    with (
        pytest.raises(BadAnswerError, match="this machine"),
        exchange(f"{hub.endpoint}/file", TOKEN, "http://192.0.2.1"),
    ):
        pass
    assert hub.requests == ["/file"]
    assert hub.tokens == []


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://192.0.2.1/", "data:,x"])
def test_a_redirect_to_another_scheme_is_refused(target: str, hub: FakeHub, tmp_path: Path) -> None:
    hub.moved_to = target
    assert "of the kind" in fails(hub, tmp_path).message


def test_a_public_address_is_not_local() -> None:
    assert not is_local("192.0.2.1")
    assert not is_local("[2001:db8::1]")


def test_a_slow_body_is_aborted_and_a_fast_one_is_not() -> None:
    seconds = count()
    with pytest.raises(SlowAnswerError, match="in a minute"):
        list(paced(repeat(b"a"), clock=lambda: float(next(seconds))))
    flowing = [bytes(MIN_WINDOW_BYTES)] * 100
    assert list(paced(flowing, clock=lambda: float(next(seconds)) * 20)) == flowing


def test_a_body_over_its_time_limit_is_aborted() -> None:
    seconds = count()
    with pytest.raises(SlowAnswerError, match="120 s"):
        list(paced(repeat(bytes(MIN_WINDOW_BYTES)), 120, lambda: float(next(seconds))))
