"""The real huggingface_hub client against a fake Hub that fails like Hubs and networks do."""

import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pensieve.errors import (
    DiskFullError,
    ModelDamagedError,
    ModelUnavailableError,
    ModelUnsupportedError,
    PensieveError,
)
from pensieve.models.catalog.sources import HubModel
from pensieve.models.fetching.download import ATTEMPTS, Download, purgeable_note
from pensieve.models.fetching.fetch import fetch, invalidate, repair
from pensieve.models.fetching.hub import CHUNK_BYTES, Hub
from pensieve.models.folder.snapshot import (
    MARKER,
    ModelFolder,
    folder_of,
    is_present,
    read_snapshot,
)
from pensieve.models.load import open_model
from pensieve.paths import under_home
from tests.models.recorded_progress import RecordedProgress
from tests.support.fake_hub import FakeHub, files_of, serving

KILLS = int(os.environ.get("PENSIEVE_KILLS", "2"))
REPO = "mlx-community/tiny-phi3"
MODEL = HubModel(REPO, REPO)
WEIGHTS = "model.safetensors"
UNWANTED = {
    "modeling_phi3.py": b"raise SystemExit",
    "pytorch_model.bin": b"pickle",
    "consolidated.safetensors": b"weights again",
    "pensieve.json": b"{}",
    "README.md": b"# Phi-3",
    ".gitattributes": b"*",
    "onnx/model.json": b"{}",
}


@pytest.fixture
def hub(tiny_phi3: ModelFolder) -> Iterator[FakeHub]:
    with serving(FakeHub(REPO, files_of(tiny_phi3.folder) | UNWANTED)) as serving_hub:
        yield serving_hub


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    return folder_of(MODEL, tmp_path / "models")


class Fetching:
    """One fetch at a time from `hub` into `destination`, without waiting; `waits` collects the
    delays.
    """

    def __init__(self, hub: FakeHub, destination: Path, free: int = 1 << 40) -> None:
        self.hub, self.destination, self.free = hub, destination, free
        self.waits: list[float] = []
        self.progress = RecordedProgress()

    def __call__(self, model: HubModel = MODEL) -> None:
        self.progress = RecordedProgress()
        hub = Hub(self.hub.endpoint)
        Download(hub, self.progress, self.waits.append, lambda folder: self.free).into(
            self.destination, model
        )

    def fails(self, kind: type[PensieveError]) -> PensieveError:
        with pytest.raises(kind) as failed:
            self()
        assert not self.destination.exists(), "half fetched, and published"
        assert len(failed.value.message.splitlines()) == 1
        return failed.value


@pytest.fixture
def fetching(hub: FakeHub, destination: Path) -> Fetching:
    return Fetching(hub, destination)


def wanted(hub: FakeHub) -> dict[str, bytes]:
    return {name: content for name, content in hub.files.items() if name not in UNWANTED}


def assert_is_whole(destination: Path, hub: FakeHub) -> None:
    assert files_of(destination).keys() == wanted(hub).keys() | {MARKER}
    assert {name: (destination / name).read_bytes() for name in wanted(hub)} == wanted(hub)
    assert not list(destination.parent.glob("*.partial"))


def test_a_fetched_model_opens(fetching: Fetching, hub: FakeHub, destination: Path) -> None:
    fetching()
    assert_is_whole(destination, hub)
    assert open_model(ModelFolder(REPO, REPO, destination)).context_tokens == 131072
    assert sum(fetching.progress.counts) == fetching.progress.total_bytes
    assert fetching.progress.total_bytes == sum(map(len, wanted(hub).values()))
    assert fetching.progress.ended == 1


def test_the_generation_config_is_fetched(
    fetching: Fetching, hub: FakeHub, destination: Path
) -> None:
    hub.files["generation_config.json"] = b'{"temperature": 0.6}'
    fetching()
    model = open_model(ModelFolder(REPO, REPO, destination))
    assert model.dialect.sampling.temperature == 0.6


def test_code_pickles_and_foreign_markers_are_not_requested(
    fetching: Fetching, hub: FakeHub
) -> None:
    fetching()
    assert not any(path.endswith(tuple(UNWANTED)) for path in hub.requests)


def test_the_commit_is_recorded_and_requests_reveal_nothing_of_this_machine(
    fetching: Fetching, hub: FakeHub, destination: Path
) -> None:
    fetching()
    snapshot = read_snapshot(destination / MARKER)
    assert snapshot is not None
    assert (snapshot.repo, snapshot.revision) == (REPO, hub.commit)
    assert not any("agent/" in headers or "torch/" in headers for headers in hub.user_agents)
    assert not any("agent-harnesses" in path for path in hub.requests)


@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
def test_an_interrupted_download_resumes(
    fetching: Fetching, hub: FakeHub, destination: Path, is_reset: bool
) -> None:
    size = len(hub.files[WEIGHTS])
    hub.is_cut_by_reset = is_reset
    hub.cuts[WEIGHTS] = [0, 1, size // 3, size // 3 + 1, size // 2, size - 1]
    fetching()
    assert_is_whole(destination, hub)
    assert len(fetching.waits) == 6
    # After an interruption the client's incomplete chunk is sent again; a reset also discards bytes
    # that the kernel had received, which the test cannot count.
    assert size <= hub.sent[WEIGHTS]
    assert is_reset or hub.sent[WEIGHTS] < size + 6 * CHUNK_BYTES
    assert sum(fetching.progress.counts) == fetching.progress.total_bytes


def test_a_stalled_download_fails_and_the_next_start_resumes(
    fetching: Fetching, hub: FakeHub, destination: Path
) -> None:
    size = len(hub.files[WEIGHTS])
    hub.cuts[WEIGHTS] = [size // 2] + [0] * ATTEMPTS
    failed = fetching.fails(ModelUnavailableError)
    assert "smollm2-135m" in (failed.hint or "")
    assert [round(wait) for wait in fetching.waits][:1] == [1]
    assert max(fetching.waits) <= 10
    assert fetching.progress.ended == 1
    hub.requests.clear()
    fetching()
    assert_is_whole(destination, hub)
    assert hub.sent[WEIGHTS] < size + CHUNK_BYTES
    assert not any(path.startswith("/api/") for path in hub.requests), "the plan was kept"
    assert fetching.progress.counts[0] > size // 2 - CHUNK_BYTES


def test_a_resumed_download_keeps_its_commit(
    fetching: Fetching, hub: FakeHub, destination: Path
) -> None:
    hub.cuts[WEIGHTS] = [100] + [0] * ATTEMPTS
    fetching.fails(ModelUnavailableError)
    hub.head = "f" * 40
    fetching()
    snapshot = read_snapshot(destination / MARKER)
    assert snapshot is not None
    assert snapshot.revision == hub.commit


def test_a_removed_commit_raises_and_the_next_start_fetches_the_new_one(
    fetching: Fetching, hub: FakeHub, destination: Path
) -> None:
    hub.cuts[WEIGHTS] = [100_000] + [0] * ATTEMPTS
    fetching.fails(ModelUnavailableError)
    hub.commit = "f" * 40
    hub.files[WEIGHTS] = hub.files[WEIGHTS][:-1] + b"!"
    assert "revision" in fetching.fails(ModelUnavailableError).message
    fetching()
    assert_is_whole(destination, hub)


def test_a_token_refused_midway_keeps_the_received_bytes(
    fetching: Fetching, hub: FakeHub, destination: Path
) -> None:
    size = len(hub.files[WEIGHTS])
    hub.cuts[WEIGHTS] = [size // 2] + [0] * ATTEMPTS
    fetching.fails(ModelUnavailableError)
    hub.refusals = [403]
    fetching.fails(ModelUnavailableError)
    fetching()
    assert_is_whole(destination, hub)
    assert hub.sent[WEIGHTS] < size + CHUNK_BYTES


def test_without_range_support_the_file_starts_over(
    fetching: Fetching, hub: FakeHub, destination: Path
) -> None:
    hub.has_ranges = False
    hub.cuts[WEIGHTS] = [len(hub.files[WEIGHTS]) // 2]
    fetching()
    assert_is_whole(destination, hub)
    assert sum(fetching.progress.counts) == fetching.progress.total_bytes


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_wrong_bytes_are_not_published_and_fetched_again(
    fetching: Fetching, hub: FakeHub, destination: Path, name: str
) -> None:
    hub.altered[name] = b"?" + hub.files[name][1:]
    failed = fetching.fails(ModelDamagedError)
    assert name in failed.message
    hub.altered.clear()
    fetching()
    assert_is_whole(destination, hub)


def test_a_response_of_another_length_keeps_the_received_bytes(
    fetching: Fetching, hub: FakeHub, destination: Path
) -> None:
    size = len(hub.files[WEIGHTS])
    hub.cuts[WEIGHTS] = [size // 2] + [0] * ATTEMPTS
    fetching.fails(ModelUnavailableError)
    hub.portal = b"<html>Please log in</html>"
    failed = fetching.fails(ModelUnavailableError)
    assert "text/html" in failed.message
    hub.portal = None
    fetching()
    assert_is_whole(destination, hub)
    assert hub.sent[WEIGHTS] < size + CHUNK_BYTES


def test_a_redirect_loop_raises_and_keeps_the_received_bytes(
    fetching: Fetching, hub: FakeHub, destination: Path
) -> None:
    hub.is_circular = True
    assert "redirect" in fetching.fails(ModelUnavailableError).message.casefold()
    hub.is_circular = False
    fetching()
    assert_is_whole(destination, hub)


def test_a_login_page_raises(fetching: Fetching, hub: FakeHub) -> None:
    hub.portal = b"<html>Please log in</html>"
    assert "the server there is not a Hub" in fetching.fails(ModelUnavailableError).message


def test_a_busy_hub_is_retried_after_its_delay(
    fetching: Fetching, hub: FakeHub, destination: Path
) -> None:
    hub.refusals = [429, 503]
    hub.headers = {"retry-after": "7"}
    fetching_fails_first = fetching.fails(ModelUnavailableError)
    assert "503" in fetching_fails_first.message
    assert fetching.waits == [7]
    fetching()
    assert_is_whole(destination, hub)


def test_a_hub_that_stays_busy_raises_one_line(fetching: Fetching, hub: FakeHub) -> None:
    hub.refusals = [429, 429]
    assert "limits our requests (429)" in fetching.fails(ModelUnavailableError).message


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (404, "RepoNotFound", "has no model"),
        (401, "RepoNotFound", "has no model"),
        (403, "GatedRepo", "terms"),
        (404, "RevisionNotFound", "revision"),
        (403, "", "refuses the token (403)"),
        (451, "", "answers 451"),
    ],
)
def test_a_refusal_of_the_hub_is_quoted(
    fetching: Fetching, hub: FakeHub, status: int, code: str, message: str
) -> None:
    hub.refusals = [status]
    hub.headers = {"x-error-code": code} if code else {}
    assert message in fetching.fails(ModelUnavailableError).message
    assert fetching.waits == []


def test_an_unreachable_hub_raises_with_advice(destination: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    nowhere = FakeHub(REPO, {}, endpoint=f"http://127.0.0.1:{port}")
    failed = Fetching(nowhere, destination).fails(ModelUnavailableError)
    assert REPO in failed.message
    assert nowhere.endpoint in failed.message
    assert "HF_ENDPOINT" in (failed.hint or "")
    assert "--model smollm2-135m" in (failed.hint or "")
    assert failed.exit_code == 69


def test_a_repository_without_mlx_weights_is_refused_before_fetching(
    fetching: Fetching, hub: FakeHub
) -> None:
    del hub.files[WEIGHTS], hub.files["pytorch_model.bin"]
    assert "safetensors" in fetching.fails(ModelUnsupportedError).message
    assert not hub.sent


def test_a_full_disk_raises_before_the_weights(fetching: Fetching, hub: FakeHub) -> None:
    config = len(hub.files["config.json"])
    missing = sum(map(len, wanted(hub).values())) - config
    fetching.free = missing
    failed = fetching.fails(DiskFullError)
    assert f"{int(missing * 1.1):,} bytes are needed and {missing:,} are free" in failed.message
    assert hub.sent == {"config.json": config}


def test_received_bytes_need_no_more_space(
    fetching: Fetching, hub: FakeHub, destination: Path
) -> None:
    size = len(hub.files[WEIGHTS])
    hub.cuts[WEIGHTS] = [size - 100] + [0] * ATTEMPTS
    fetching.fails(ModelUnavailableError)
    fetching.free = size // 2
    fetching()
    assert_is_whole(destination, hub)


def test_a_present_model_needs_no_network(fetching: Fetching, tmp_path: Path) -> None:
    fetching()
    progress = RecordedProgress()
    home = under_home(tmp_path)
    assert is_present(MODEL, home.models)
    fetching.hub.requests.clear()
    assert fetch(MODEL, home, progress).folder == fetching.destination
    assert fetching.hub.requests == []
    assert progress.total_bytes == 0


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
@pytest.mark.parametrize("damage", ["a bit", "the end", "all of it"])
def test_repair_fetches_only_the_damaged_file(
    fetching: Fetching, tmp_path: Path, name: str, damage: str
) -> None:
    fetching()
    hub, file, home = fetching.hub, fetching.destination / name, under_home(tmp_path)
    content = file.read_bytes()
    altered = {"a bit": bytes([content[0] ^ 1]) + content[1:], "the end": content[:-1]}.get(damage)
    file.unlink() if altered is None else file.write_bytes(altered)
    hub.sent.clear()
    hub.requests.clear()
    assert invalidate(MODEL, home, RecordedProgress()) == (name,)
    assert not is_present(MODEL, home.models)
    fetching()
    assert_is_whole(fetching.destination, hub)
    assert hub.sent == {name: len(content)}
    assert not any(path.startswith("/api/") for path in hub.requests), "the same commit"


def test_repair_keeps_an_intact_model(fetching: Fetching, tmp_path: Path) -> None:
    fetching()
    progress = RecordedProgress()
    assert repair(MODEL, under_home(tmp_path), progress) == ()
    assert sum(progress.counts) == progress.total_bytes > 0
    assert progress.ended == 1
    assert_is_whole(fetching.destination, fetching.hub)


def child(hub: FakeHub, home: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.models.fetching_child", REPO, str(home)],
        env=os.environ | {"HF_ENDPOINT": hub.endpoint},
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        text=True,
    )


def read_bytes_until(process: "subprocess.Popen[str]", enough: Callable[[int], bool]) -> int:
    assert process.stdout
    here = 0
    while not enough(here):
        here += int(process.stdout.readline())
    return here


def test_a_killed_fetch_resumes(hub: FakeHub, destination: Path, tmp_path: Path) -> None:
    size = len(hub.files[WEIGHTS])
    hub.stalls[WEIGHTS] = size // 2
    with child(hub, tmp_path) as killed:
        read_bytes_until(killed, lambda here: here >= size // 2 - CHUNK_BYTES)
        killed.kill()
    assert not destination.exists()
    del hub.stalls[WEIGHTS]
    hub.released.set()
    Fetching(hub, destination)()
    assert_is_whole(destination, hub)
    assert hub.sent[WEIGHTS] <= size + 2 * CHUNK_BYTES


def test_fetches_killed_at_any_moment_end_in_a_complete_model(
    hub: FakeHub, destination: Path, tmp_path: Path
) -> None:
    """Two kills by default; set `PENSIEVE_KILLS=50` for the full run."""
    size, moments = len(hub.files[WEIGHTS]), random.Random(7)
    for _ in range(KILLS):
        hub.stalls[WEIGHTS] = moments.randrange(1, size)
        with child(hub, tmp_path) as killed:
            assert killed.stdout
            killed.stdout.readline()  # it has begun; where it is by now nobody knows
            killed.kill()
        hub.released.set()
        assert not destination.exists()
    hub.stalls.clear()
    Fetching(hub, destination)()
    assert_is_whole(destination, hub)
    assert hub.sent[WEIGHTS] <= size + (KILLS + 1) * 2 * CHUNK_BYTES


def test_concurrent_fetches_share_one_download(
    hub: FakeHub, destination: Path, tmp_path: Path
) -> None:
    with child(hub, tmp_path) as first, child(hub, tmp_path) as second:
        counts = [sum(map(int, process.communicate()[0].split())) for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert_is_whole(destination, hub)
    assert hub.sent == {name: len(content) for name, content in wanted(hub).items()}
    assert sorted(counts) == [0, sum(map(len, wanted(hub).values()))]


def test_the_note_on_purgeable_space_is_for_macos_only() -> None:
    assert "Purgeable space" in purgeable_note("darwin")
    assert purgeable_note("linux") == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_disk_that_fills_up_during_the_download_raises(
    fetching: Fetching, hub: FakeHub, destination: Path
) -> None:
    hub.cuts[WEIGHTS] = [0] * ATTEMPTS
    fetching.fails(ModelUnavailableError)
    part = destination.with_name(destination.name + ".partial") / f"{WEIGHTS}.part"
    part.unlink(missing_ok=True)
    part.symlink_to("/dev/full")
    assert "too full" in fetching.fails(DiskFullError).message
    part.unlink()
    fetching()
    assert_is_whole(destination, hub)
