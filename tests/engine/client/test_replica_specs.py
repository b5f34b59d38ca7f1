"""Which engines the settings ask for."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pensieve.engine.client.launch import WorkerSpec, open_worker
from pensieve.models.folder.snapshot import ModelFolder
from pensieve.paths import under_home
from pensieve.server.engines import replica_specs
from pensieve.settings.resolve import Settings

MODEL = ModelFolder("tiny", "someone/tiny", Path("tiny"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(under_home(tmp_path))


def test_one_worker_has_the_whole_machine(settings: Settings) -> None:
    spec = WorkerSpec(MODEL.folder, "cpu", settings.paths.prefixes)
    [only] = replica_specs(settings, MODEL, spec)
    assert (only.worker, only.open_worker) == (spec, open_worker)


def test_several_workers_share_the_machine_and_have_folders_of_their_own(
    settings: Settings,
) -> None:
    spec = WorkerSpec(MODEL.folder, "cpu", settings.paths.prefixes)
    specs = replica_specs(replace(settings, workers=3), MODEL, spec)
    assert [each.name for each in specs] == ["worker-1", "worker-2", "worker-3"]
    assert [each.worker.limits.engines for each in specs] == [3, 3, 3]
    assert len({each.worker.prefix_folder for each in specs}) == 3


def test_hosts_have_one_engine_each_and_this_machine_its_workers(settings: Settings) -> None:
    spec = WorkerSpec(MODEL.folder, "cpu", settings.paths.prefixes)
    shared = replace(settings, hosts="localhost, studio.local", replicas=True, workers=2)
    specs = replica_specs(shared, MODEL, spec)
    assert [each.name for each in specs] == ["worker-1", "worker-2", "studio.local"]
    assert [each.worker.host for each in specs] == ["", "", "studio.local"]
    assert [each.worker.limits.engines for each in specs] == [2, 2, 1]


def test_one_worker_imports_nothing_for_several() -> None:
    code = "import sys, pensieve.server.engines; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(run.stdout.split())
    assert "pensieve.engine.client.client" in modules
    assert not {each for each in modules if "router" in each or "replicas" in each}
