"""The machine, MLX on it, and the context that its memory guarantees."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from typing import Any, cast

from pensieve.doctor.context import DoctorContext
from pensieve.doctor.finding import Finding, ok, red, warning
from pensieve.errors import ModelError, UnsupportedPlatformError
from pensieve.isolation import python
from pensieve.machine import Machine, chip, choose_device
from pensieve.models.catalog.expected_model import shape_by_name
from pensieve.models.catalog.memory_fit import MemoryLimit, estimate_fit, memory_limit_here
from pensieve.models.catalog.recommend import WORKING_CONTEXT_TOKENS
from pensieve.settings.resolve import Device, Settings

GB = 10**9
PROBE_S = 60
# Prints what MLX says of the device after one sum on it; what goes wrong in there ends that process alone.
PROBE = (
    "import json, sys, mlx.core as mx; mx.set_default_device(getattr(mx, sys.argv[1]));"
    "mx.eval(mx.ones((64, 64)) @ mx.ones((64, 64)));"
    "print(json.dumps({k: v for k, v in mx.device_info().items() if isinstance(v, (int, str))}))"
)

Run = Callable[[Device], "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True, slots=True)
class MLXAnswer:
    """What a process that computed with MLX said; facts empty where it failed, `trouble` says how."""

    facts: dict[str, Any]
    trouble: str = ""


def check(
    patient: DoctorContext, run: Run | None = None, sw_vers: Callable[[], str] | None = None
) -> Iterator[Finding]:
    """The machine, MLX, memory, context. sw_vers: tells the version of macOS, empty where there is none."""
    machine = patient.machine
    asked = cast("Device", patient.record.device) if patient.record else patient.settings.device
    found = f"{chip()}, {machine.describe()}"
    try:
        device = choose_device(asked, machine)
    except UnsupportedPlatformError as error:
        yield red("machine", f"{found}. {error.message.splitlines()[0]}", _way_round(error))
        yield from _context(patient, memory_limit_here(machine, patient.settings))
        return
    yield ok("machine", found)
    yield from _python(machine, (sw_vers or _sw_vers)())
    answer = ask_mlx(device, run or _run)
    yield _mlx(device, answer)
    room = memory_limit_here(machine, patient.settings, answer.facts)
    yield _memory(machine, patient.settings, answer, room)
    yield from _context(patient, room)


def _python(machine: Machine, macos: str) -> Iterator[Finding]:
    """A Python built with an SDK before macOS 26 is told 16 for 26, and pip then takes the wheel that is made for macOS 15."""
    if not machine.macos or not macos or _major(machine.macos) == _major(macos):
        return
    yield warning(
        "python",
        f"this is macOS {macos}, but this Python takes it for {machine.macos} (it was built with an older SDK): pip gets it"
        " the build of MLX that is made for an older macOS, which is slower on an M5",
        "brew install python@3.14",
    )


def _sw_vers() -> str:
    with suppress(OSError, subprocess.SubprocessError):
        command = ["/usr/bin/sw_vers", "-productVersion"]
        return subprocess.run(  # noqa: S603 -- a fixed program
            command, capture_output=True, text=True, timeout=5, check=False
        ).stdout.strip()
    return ""


def _major(version: str) -> str:
    return version.partition(".")[0]


def ask_mlx(device: Device, run: Run) -> MLXAnswer:
    """Have a process of its own compute with MLX on `device`."""
    try:
        done = run(device)
        if done.returncode == 0:
            return MLXAnswer(json.loads(done.stdout))
        lines = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        return MLXAnswer({}, lines[-1])
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return MLXAnswer({}, f"{type(error).__name__}: {error}")


def _run(device: Device) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603 -- our own interpreter and words
        python("-c", PROBE, device), capture_output=True, text=True, timeout=PROBE_S, check=False
    )


def _mlx(device: Device, answer: MLXAnswer) -> Finding:
    versions = f"MLX {_version('mlx')}, mlx-lm {_version('mlx-lm')}"
    if answer.trouble:
        fix = (
            "brew reinstall pensieve"
            if sys.platform == "darwin"
            else "pip install 'pensieve-llm[cpu]'"
        )
        return red("mlx", f"{versions}: it does not compute on the {device}: {answer.trouble}", fix)
    name = answer.facts.get("device_name", "this device")
    return ok("mlx", f"{versions} computes on the {device.upper()} ({name})")


def _memory(machine: Machine, settings: Settings, answer: MLXAnswer, room: MemoryLimit) -> Finding:
    working_set = answer.facts.get("max_recommended_working_set_size")
    whole = f"{machine.memory_bytes / 2**30:.0f} GB"
    of_set = f"; Metal's working set is {working_set / GB:.1f} GB" if working_set else ""
    origin = settings.origins.get("memory_gb", "computed from the machine")
    text = f"{whole}{of_set}; pensieve may use {room.limit_bytes / GB:.1f} GB ({origin})"
    if working_set and room.limit_bytes > working_set:
        return warning(
            "memory",
            f"{text}, more than Metal recommends: it may page or abort",
            "pensieve config unset memory_gb",
        )
    return ok("memory", text)


def _context(patient: DoctorContext, room: MemoryLimit) -> Iterator[Finding]:
    """As the engine says where it runs; else as it will say, by the model's published shape."""
    health = patient.health
    if health and health.is_well and health.context_tokens:
        reason = health.engine.kv_reason or "as the engine measured"
        yield _judged(health.context_tokens, f"{health.model} on this server", reason)
        return
    with suppress(ModelError):
        shape = shape_by_name(patient.settings)
        fitted = estimate_fit(shape, room)
        yield _judged(
            fitted.context_tokens, f"{patient.settings.model} here, as planned", fitted.reason
        )


def _judged(tokens: int, who: str, reason: str) -> Finding:
    if not tokens:
        return red(
            "context", f"{who}: it does not fit into memory", "pensieve models\npensieve use auto"
        )
    text = f"{tokens:,} tokens guaranteed for {who} ({reason})"
    if tokens < WORKING_CONTEXT_TOKENS:
        few = "Claude Code begins with 12,000 to 14,000: little is left to work with"
        return warning("context", f"{text}. {few}", "pensieve models")
    return ok("context", text)


def _way_round(error: UnsupportedPlatformError) -> str:
    """The commands among a refusal's hints, without what is said beside them."""
    lines = [line.strip().partition("   ")[0] for line in (error.hint or "").splitlines()]
    return "\n".join(line for line in lines if line.startswith(("pensieve ", "pip ", "/opt/")))


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "(not installed)"
