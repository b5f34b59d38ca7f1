"""Check the machine, MLX on it, and the context that its memory guarantees."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from typing import Any, cast

from pensieve.doctor.context import DoctorContext
from pensieve.doctor.finding import Finding, ok, red, warning
from pensieve.errors import ModelError, UnsupportedPlatformError
from pensieve.installation import Installation
from pensieve.isolation import python
from pensieve.machine import Machine, chip, choose_device
from pensieve.models.catalog.expected_model import shape_by_name
from pensieve.models.catalog.memory_fit import MemoryLimit, estimate_fit, memory_limit_here
from pensieve.models.catalog.recommend import WORKING_CONTEXT_TOKENS
from pensieve.settings.resolve import Device, Settings

GB = 10**9
PROBE_TIMEOUT_S = 60
# Prints MLX's device facts after one product; a crash ends only that process.
PROBE = (
    "import json, sys, mlx.core as mx; mx.set_default_device(getattr(mx, sys.argv[1]));"
    "mx.eval(mx.ones((64, 64)) @ mx.ones((64, 64)));"
    "print(json.dumps({k: v for k, v in mx.device_info().items() if isinstance(v, (int, str))}))"
)

Run = Callable[[Device], "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True, slots=True)
class MLXAnswer:
    facts: dict[str, Any]  # empty on failure
    problem: str = ""


def check(
    context: DoctorContext, run: Run | None = None, sw_vers: Callable[[], str] | None = None
) -> Iterator[Finding]:
    """Check machine, MLX, memory, context. `sw_vers` returns macOS's version, empty elsewhere."""
    machine = context.machine
    requested = cast("Device", context.record.device) if context.record else context.settings.device
    summary = f"{chip()}, {machine.describe()}"
    try:
        device = choose_device(requested, machine, lambda: context.installation)
    except UnsupportedPlatformError as error:
        yield red("machine", f"{summary}. {error.message.splitlines()[0]}", _commands(error))
        yield from _context(context, memory_limit_here(machine, context.settings))
        return
    yield ok("machine", summary)
    yield from _python(machine, (sw_vers or _sw_vers)())
    answer = ask_mlx(device, run or _run)
    yield _mlx(device, answer, machine, context.installation)
    limit = memory_limit_here(machine, context.settings, answer.facts)
    yield _memory(machine, context.settings, answer, limit)
    yield from _context(context, limit)


def _python(machine: Machine, macos: str) -> Iterator[Finding]:
    """Compare Python's macOS version with the real one.

    A Python built with an SDK before macOS 26 sees 16 instead of 26, so that pip installs the wheel
    built for macOS 15.
    """
    if not machine.macos or not macos or _major(machine.macos) == _major(macos):
        return
    yield warning(
        "python",
        f"this is macOS {macos}, but this Python takes it for {machine.macos} (it was built with"
        " an older SDK): pip installs MLX for an older macOS, which is slower on an M5",
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
    """Compute with MLX on `device` in a process of its own."""
    try:
        result = run(device)
        if result.returncode == 0:
            return MLXAnswer(json.loads(result.stdout))
        lines = result.stderr.strip().splitlines() or [f"it ended with {result.returncode}"]
        return MLXAnswer({}, lines[-1])
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return MLXAnswer({}, f"{type(error).__name__}: {error}")


def _run(device: Device) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603 -- our own interpreter and arguments
        python("-c", PROBE, device),
        capture_output=True,
        text=True,
        timeout=PROBE_TIMEOUT_S,
        check=False,
    )


def _mlx(device: Device, answer: MLXAnswer, machine: Machine, installed: Installation) -> Finding:
    versions = f"MLX {_version('mlx')}, mlx-lm {_version('mlx-lm')}"
    if answer.problem:
        extra = {"gpu": "cuda", "cpu": "cpu"}[device] if machine.kind == "linux" else ""
        fix = installed.install_command(extra)
        return red("mlx", f"{versions}: it does not compute on the {device}: {answer.problem}", fix)
    name = answer.facts.get("device_name", "this device")
    return ok("mlx", f"{versions} computes on the {device.upper()} ({name})")


def _memory(machine: Machine, settings: Settings, answer: MLXAnswer, limit: MemoryLimit) -> Finding:
    working_set = answer.facts.get("max_recommended_working_set_size")
    total = f"{machine.memory_bytes / 2**30:.0f} GB"
    working_set_text = f"; Metal's working set is {working_set / GB:.1f} GB" if working_set else ""
    origin = settings.origins.get("memory_gb", "computed from the machine")
    text = f"{total}{working_set_text}; pensieve may use {limit.limit_bytes / GB:.1f} GB ({origin})"
    if working_set and limit.limit_bytes > working_set:
        return warning(
            "memory",
            f"{text}, more than Metal recommends: it may page or abort",
            "pensieve config unset memory_gb",
        )
    return ok("memory", text)


def _context(context: DoctorContext, limit: MemoryLimit) -> Iterator[Finding]:
    """Report the context as the running engine does; else estimate it from the model's shape."""
    health = context.health
    if health and health.is_well and health.context_tokens:
        reason = (health.engine and health.engine.kv_reason) or "as the engine measured"
        yield _context_finding(health.context_tokens, f"{health.model} on this server", reason)
        return
    with suppress(ModelError):
        shape = shape_by_name(context.settings)
        estimate = estimate_fit(shape, limit)
        yield _context_finding(
            estimate.context_tokens, f"{context.settings.model} here, as planned", estimate.reason
        )


def _context_finding(tokens: int, subject: str, reason: str) -> Finding:
    if not tokens:
        return red(
            "context",
            f"{subject}: it does not fit into memory",
            "pensieve models\npensieve use auto",
        )
    text = f"{tokens:,} tokens guaranteed for {subject} ({reason})"
    if tokens < WORKING_CONTEXT_TOKENS:
        few = "Claude Code's first request takes 4,000 to 9,500: little remains to work with"
        return warning("context", f"{text}. {few}", "pensieve models")
    return ok("context", text)


def _commands(error: UnsupportedPlatformError) -> str:
    """Return the commands in an error's hint without their explanations."""
    indented = (line for line in (error.hint or "").splitlines() if line.startswith("  "))
    lines = (line.strip().partition("   ")[0] for line in indented)
    return "\n".join(line for line in lines if not line.startswith("("))


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "(not installed)"
