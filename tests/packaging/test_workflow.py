"""The macOS workflow is YAML, its scripts parse, and what it names exists."""

import re
import subprocess
from functools import cache
from typing import Any

import pytest
import yaml

from tests.packaging.project import ROOT, read

SCRIPTS = sorted(path.name for path in (ROOT / "packaging").glob("*.sh"))


@cache
def jobs() -> dict[str, Any]:
    return yaml.safe_load(read(".github/workflows/macos.yml"))["jobs"]


def runs(job: str) -> list[str]:
    return [step["run"] for step in jobs()[job]["steps"] if "run" in step]


def parsed(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/bash", "-n"], input=script, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("job", ["formula", "suite", "metal", "vulnerabilities"])
def test_every_step_is_a_script_that_parses(job: str) -> None:
    assert runs(job)
    for script in runs(job):
        assert parsed(script).returncode == 0, script


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_of_the_project_parses(name: str) -> None:
    done = parsed(read(f"packaging/{name}"))
    assert (done.returncode, done.stderr) == (0, "")


def test_named_scripts_targets_and_tests_exist() -> None:
    source = "\n".join(script for job in jobs() for script in runs(job))
    scripts = set(re.findall(r"packaging/[\w-]+\.sh", source))
    assert scripts == {"packaging/ask.sh", "packaging/record-mac.sh"}
    assert all((ROOT / script).stat().st_mode & 0o111 for script in scripts)
    targets = set(re.findall(r"\bmake ([\w./-]+)", source))
    assert targets == {"brew", "test", ".venv/dev.stamp"}
    assert all(re.search(rf"^{re.escape(one)}:", read("Makefile"), re.MULTILINE) for one in targets)
    paths = re.findall(r"tests/[\w/.]+", source)
    assert paths
    assert all((ROOT / path).exists() for path in paths)


def test_brew_style_covers_the_formula_alone() -> None:
    [styled] = [script for script in runs("formula") if "brew style" in script]
    assert 'brew style "$FORMULA"' in styled
    assert jobs()["formula"]["env"]["FORMULA"].endswith("/pensieve")


def test_service_steps_are_start_request_record_and_stop() -> None:
    script = "\n".join(runs("formula"))
    steps = ("services start", "ask.sh 48", "record-mac.sh", "exit timeout = 25", "services stop")
    places = [script.index(step) for step in steps]
    assert places == sorted(places)


def test_tests_on_a_virtual_gpu_may_fail() -> None:
    metal = jobs()["metal"]
    assert metal["continue-on-error"] is True
    assert metal["steps"][-1]["env"] == {"PENSIEVE_TEST_DEVICE": "gpu"}
