"""Findings about the machine, MLX in its own process, memory and context."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pensieve.daemon.health_client import Health
from pensieve.doctor.checks.hardware import ask_mlx, check
from pensieve.doctor.context import DoctorContext
from pensieve.doctor.finding import Finding
from pensieve.engine.generation import EngineStats
from pensieve.machine import Machine
from pensieve.settings.resolve import Device
from tests.doctor.contexts import LINUX, MAC, healthy_context, of_topic, with_server

M4 = {"device_name": "Apple M4 Pro", "max_recommended_working_set_size": 17_179_869_184}
Run = Callable[[Device], "subprocess.CompletedProcess[str]"]


def says(facts: dict[str, object]) -> Run:
    return lambda device: subprocess.CompletedProcess([], 0, json.dumps(facts), "")


def fails(message: str, code: int = 1) -> Run:
    return lambda device: subprocess.CompletedProcess([], code, "", message)


def examined(context: DoctorContext, run: Run | None = None, macos: str = "26.1") -> list[Finding]:
    return list(check(context, run or says(M4), lambda: macos))


def test_a_healthy_mac_is_described_by_chip_memory_working_set_and_device(
    tmp_path: Path,
) -> None:
    findings = examined(healthy_context(tmp_path))
    assert [finding.level for finding in findings] == ["ok"] * 4
    assert "macOS 26.1" in of_topic(findings, "machine").text
    assert "Apple M4 Pro" in of_topic(findings, "mlx").text
    assert "working set is 17.2 GB; pensieve may use 15.5 GB" in of_topic(findings, "memory").text
    context = of_topic(findings, "context").text
    assert context.startswith("50,688 tokens guaranteed for phi-3-mini here, as planned (8-bit: ")


def test_a_python_with_a_wrong_macos_version_is_a_warning(tmp_path: Path) -> None:
    mistaken = healthy_context(tmp_path, replace(MAC, macos="16.0"))
    finding = of_topic(examined(mistaken, macos="26.1"), "python")
    assert finding.level == "warning"
    assert "macOS 26.1" in finding.text
    assert "16.0" in finding.text


@pytest.mark.parametrize("macos", ["26.1", "26.2.1", ""])
def test_a_python_with_the_right_macos_version_has_no_finding(macos: str, tmp_path: Path) -> None:
    assert "python" not in {
        finding.topic for finding in examined(healthy_context(tmp_path), macos=macos)
    }


def test_an_unsupported_machine_is_red_with_commands(tmp_path: Path) -> None:
    finding = of_topic(examined(healthy_context(tmp_path, LINUX)), "machine")
    assert finding.level == "red"
    assert finding.fix.splitlines() == [
        "pensieve start --device cpu",
        "pensieve start --device gpu",
        f"{tmp_path}/python -m pip install '{tmp_path}/clone[cuda]'",
    ]
    finding = of_topic(examined(healthy_context(tmp_path, LINUX, device="cpu")), "machine")
    assert finding.level == "ok"


def test_an_old_macos_is_red(tmp_path: Path) -> None:
    old = replace(MAC, macos="13.6")
    assert of_topic(examined(healthy_context(tmp_path, old)), "machine").level == "red"


def test_an_aborting_mlx_is_red_with_its_error(tmp_path: Path) -> None:
    aborted = fails("libc++abi: terminating\n[METAL] no device", -6)
    finding = of_topic(examined(healthy_context(tmp_path), aborted), "mlx")
    assert finding.level == "red"
    assert "[METAL] no device" in finding.text
    assert finding.fix == f"{tmp_path}/python -m pip install {tmp_path}/clone"
    on_linux = examined(healthy_context(tmp_path, LINUX, device="cpu"), aborted)
    assert of_topic(on_linux, "mlx").fix.endswith("/clone[cpu]'")


def test_mlx_really_computes_in_a_process_of_its_own(tmp_path: Path) -> None:
    findings = list(check(healthy_context(tmp_path, LINUX, device="cpu", model="smollm2-135m")))
    assert of_topic(findings, "mlx").level == "ok"
    assert "computes on the CPU" in of_topic(findings, "mlx").text


def test_a_probe_without_json_or_end_is_a_problem() -> None:
    def late(device: Device) -> "subprocess.CompletedProcess[str]":
        raise subprocess.TimeoutExpired("python", 60)

    assert ask_mlx("cpu", late).problem.startswith("TimeoutExpired")
    nonsense = subprocess.CompletedProcess([], 0, "no", "")
    assert ask_mlx("cpu", lambda device: nonsense).problem


def test_more_memory_than_metal_recommends_is_a_warning(tmp_path: Path) -> None:
    finding = of_topic(examined(healthy_context(tmp_path, memory_gb=20.0)), "memory")
    assert finding.level == "warning"
    assert "pensieve config unset memory_gb" in finding.fix


@pytest.mark.parametrize(
    ("memory_gib", "model", "level"),
    [(8, "phi-3-mini", "warning"), (8, "qwen3.5-9b", "red"), (16, "qwen3.5-9b", "ok")],
)
def test_a_short_context_is_a_warning(
    tmp_path: Path, memory_gib: int, model: str, level: str
) -> None:
    machine = replace(MAC, memory_bytes=memory_gib << 30)
    finding = of_topic(examined(healthy_context(tmp_path, machine, model=model)), "context")
    assert finding.level == level
    assert level == "ok" or "pensieve models" in finding.fix


def test_the_engines_context_precedes_the_estimate(tmp_path: Path) -> None:
    engine = EngineStats(8, "8-bit, as asked for", 3, 1, 2)
    health = Health("ready", model="tiny", context_tokens=40_000, engine=engine)
    finding = of_topic(examined(with_server(healthy_context(tmp_path), 7777, health)), "context")
    assert finding.text == "40,000 tokens guaranteed for tiny on this server (8-bit, as asked for)"


def test_a_machine_with_unknown_facts_is_described(tmp_path: Path) -> None:
    bare = Machine("OpenBSD", "arm64", "3.13.1")
    findings = examined(healthy_context(tmp_path, bare, model="someone/unknown"))
    assert [finding.topic for finding in findings] == ["machine"]
