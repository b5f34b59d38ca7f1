"""What figures depend on: model, machine, versions, other load, power."""

import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from pensieve.daemon.health_client import Health
from pensieve.machine import GIB, Machine, chip

PMSET = "/usr/bin/pmset"
# More load than this per core before the measuring makes figures doubtful.
MAX_LOAD_SHARE = 0.25
_LIBRARIES = ("mlx", "mlx-lm")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The machine, and its state before the measuring."""

    machine: str
    cores: int
    load: float  # busy or waiting processes, on average over a minute
    power: str = ""  # as macOS names the source; empty if unknown

    def warnings(self) -> list[str]:
        found: list[str] = []
        if self.load > MAX_LOAD_SHARE * self.cores:
            found.append(
                f"other programs used the processor before: load {self.load:.1f} on"
                f" {self.cores} cores"
            )
        if self.power.startswith("Battery"):
            found.append("on battery, where a Mac can be slower")
        return found


def surroundings(machine: Machine) -> Surroundings:
    cores = os.cpu_count() or 1
    system = f"macOS {machine.macos}" if machine.macos else machine.system
    gib = f"{machine.memory_bytes / GIB:.0f} GiB"
    return Surroundings(
        f"{chip()}, {cores} cores, {gib}, {system}", cores, os.getloadavg()[0], power()
    )


def conditions(health: Health, model: str, around: Surroundings) -> dict[str, str]:
    """Return what should be equal for figures to be comparable, by name."""
    libraries = [f"{name} {_version(name)}" for name in _LIBRARIES]
    return {
        "model": model,
        "context": f"{health.context_tokens:,} tokens",
        "KV cache": health.engine.kv_reason if health.engine else "unknown",
        "device": health.device,
        "machine": around.machine,
        "versions": ", ".join([f"pensieve {health.version}", *libraries]),
        "power": around.power,
    }


def model_name(name: str, repo: str) -> str:
    """Return the name with its repository, but not with the path of a local folder."""
    return name if repo in {"", name} or repo.startswith("/") else f"{name} ({repo})"


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"


def power(platform: str = sys.platform) -> str:
    return power_source(_pmset()) if platform == "darwin" else ""


def power_source(printed: str) -> str:
    """Parse `pmset -g batt`: Now drawing from 'AC Power'."""
    _, _, rest = printed.partition("drawing from '")
    return rest.partition("'")[0]


def _pmset() -> str:
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(  # noqa: S603 -- a fixed path and arguments
            [PMSET, "-g", "batt"], capture_output=True, text=True, timeout=5, check=False
        ).stdout
    return ""
