"""Facts about this machine, and the device that MLX may use on it.

`inspect` gathers facts and `choose_device` decides by them alone. Imports no MLX: the installed
builds are read from the distributions' metadata, so that `start` refuses an unsuitable machine
before it loads anything large.
"""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, assert_never

from pensieve.errors import UnsupportedPlatformError
from pensieve.installation import Installation, installation
from pensieve.settings.resolve import Device

Kind = Literal["apple_silicon", "rosetta", "intel_mac", "linux", "other"]

MIN_MACOS = 14
# MLX's kernels for the tensor units of M5 and later need this macOS (mlx/backend/metal/device.cpp,
# `is_nax_available`).
MODERN_MACOS = 26
NAX_MACOS = (MODERN_MACOS, 2)
NAX_GENERATION = 5
CUDA_DISTRIBUTIONS = ("mlx-cuda-13", "mlx-cuda-12")
CPU_DISTRIBUTIONS = ("mlx-cpu",)
MIB = 1024**2
GIB = 1024**3
CHIP_KEY = "machdep.cpu.brand_string"
WIRED_LIMIT_KEY = "iogpu.wired_limit_mb"


@dataclass(frozen=True, slots=True)
class Machine:
    system: str
    architecture: str  # of the Python process
    python: str
    macos: str = ""  # the version; empty elsewhere
    memory_bytes: int = 0  # 0: unknown
    is_rosetta: bool = False
    has_mlx_cuda: bool = False
    has_mlx_cpu: bool = False
    chip: str = ""  # as macOS names it: "Apple M4 Pro"
    wired_limit_bytes: int = 0  # the limit that the user set for the GPU; 0: none

    @property
    def macos_version(self) -> tuple[int, int]:
        """Major and minor version; (0, 0) if unknown. macOS 26 reports 16 to programs that were
        built for older versions.
        """
        numbers = [int(part) for part in self.macos.split(".")[:2] if part.isdecimal()]
        major, minor = (*numbers, 0, 0)[:2]
        return (major + 10 if 16 <= major < MODERN_MACOS else major, minor)

    @property
    def chip_generation(self) -> int:
        """4 for an M4 of any size; 0 if unknown."""
        match = re.match(r"Apple M(\d+)", self.chip)
        return int(match[1]) if match else 0

    @property
    def has_nax(self) -> bool:
        """Whether MLX uses the GPU's tensor units."""
        return self.chip_generation >= NAX_GENERATION and self.macos_version >= NAX_MACOS

    @property
    def kind(self) -> Kind:
        if self.system == "Darwin":
            if self.architecture == "arm64":
                return "apple_silicon"
            return "rosetta" if self.is_rosetta else "intel_mac"
        return "linux" if self.system == "Linux" else "other"

    def describe(self) -> str:
        """Return the facts in one line for people."""
        system = f"macOS {self.macos}" if self.macos else self.system
        installed = "CUDA" if self.has_mlx_cuda else "CPU" if self.has_mlx_cpu else ""
        facts = [
            f"{system} on {self.architecture}",
            f"{self.memory_bytes / GIB:.0f} GiB of memory" if self.memory_bytes else "",
            f"Python {self.python}",
            f"MLX's {installed} build" if installed else "",
        ]
        return ", ".join(fact for fact in facts if fact)


def inspect() -> Machine:
    system, architecture = platform.system(), platform.machine()
    kernel = kernel_values(_sysctl_lines(CHIP_KEY, WIRED_LIMIT_KEY)) if system == "Darwin" else {}
    return Machine(
        system=system,
        architecture=architecture,
        python=platform.python_version(),
        macos=platform.mac_ver()[0],
        memory_bytes=_memory_bytes(),
        is_rosetta=is_translated(system, architecture, _sysctl),
        has_mlx_cuda=any(map(_is_installed, CUDA_DISTRIBUTIONS)),
        has_mlx_cpu=any(map(_is_installed, CPU_DISTRIBUTIONS)),
        chip=kernel.get(CHIP_KEY, ""),
        wired_limit_bytes=_parse_int(kernel.get(WIRED_LIMIT_KEY, "")) * MIB,
    )


def chip(sysctl: Callable[[str], str] | None = None) -> str:
    """Return the processor's name as the system reports it."""
    if name := (sysctl or _sysctl)(CHIP_KEY):
        return name
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        return next(names, platform.machine())
    return platform.machine()


def is_translated(system: str, architecture: str, sysctl: Callable[[str], str]) -> bool:
    """Whether an Intel Python runs on Apple silicon, where the kernel reports an Intel processor.

    `sysctl.proc_translated` is 1 in a translated process; `hw.optional.arm64` exists on Apple
    silicon only.
    """
    if (system, architecture) != ("Darwin", "x86_64"):
        return False
    return "1" in {sysctl("sysctl.proc_translated"), sysctl("hw.optional.arm64")}


def choose_device(
    requested: Device | None,
    machine: Machine,
    installed: Callable[[], Installation] = installation,
    command: str = "pensieve start",
) -> Device:
    """Return `requested` if this machine supports it; the GPU on Apple silicon without a request.

    command: the one that the error tells how to call.

    Raises `UnsupportedPlatformError` with the facts and, if there is one, a way to run pensieve.
    """
    kind = machine.kind
    match kind:
        case "apple_silicon":
            return _on_apple_silicon(requested, machine)
        case "rosetta":
            raise _rosetta(machine, installed())
        case "intel_mac":
            raise _intel_mac(machine)
        case "linux":
            return _on_linux(requested, machine, installed, command)
        case "other":
            raise _other(machine)
        case _:
            assert_never(kind)


def _on_apple_silicon(requested: Device | None, machine: Machine) -> Device:
    major = machine.macos.partition(".")[0]
    if major.isdecimal() and int(major) < MIN_MACOS:
        raise UnsupportedPlatformError(
            f"Unsupported macOS: MLX needs macOS {MIN_MACOS} or later.\n"
            f"Found: {machine.describe()}.",
            hint="Update macOS in System Settings > General > Software Update, then start again.",
        )
    return requested or "gpu"


def _on_linux(
    requested: Device | None,
    machine: Machine,
    installed: Callable[[], Installation],
    command: str,
) -> Device:
    match requested:
        case None:
            raise _no_device_given(machine, installed(), command)
        case "cpu":
            if machine.has_mlx_cpu or machine.has_mlx_cuda:
                return "cpu"
            raise _not_installed("cpu", "CPU", machine, installed())
        case "gpu":
            if machine.has_mlx_cuda:
                return "gpu"
            raise _not_installed("gpu", "CUDA", machine, installed())
        case _:
            assert_never(requested)


def _no_device_given(
    machine: Machine, installed: Installation, command: str
) -> UnsupportedPlatformError:
    has_cpu = machine.has_mlx_cpu or machine.has_mlx_cuda
    cpu = "" if has_cpu else f"\nTo install the CPU build:\n  {installed.install_command('cpu')}"
    cuda = (
        ""
        if machine.has_mlx_cuda
        else f"\nTo install the CUDA build:\n  {installed.install_command('cuda')}"
    )
    notes = " " * len(f"  {command} --device cpu   ")
    return _unsupported(
        machine,
        "To run it here anyway, name the device:\n"
        f"  {command} --device cpu   MLX's CPU back end: slow, good for a try\n"
        f"{notes}({'not installed' if cpu else 'installed'})\n"
        f"  {command} --device gpu   MLX's CUDA build, on an NVIDIA GPU\n"
        f"{notes}({'not installed' if cuda else 'installed'})\n"
        f"A small model to begin with: --model smollm2-135m{cpu}{cuda}",
    )


def _not_installed(
    device: Device, build: str, machine: Machine, installed: Installation
) -> UnsupportedPlatformError:
    extra = "cpu" if device == "cpu" else "cuda"
    return UnsupportedPlatformError(
        f"--device {device} needs MLX's {build} build, which is not installed here.\n"
        f"Found: {machine.describe()}.",
        hint=f"Install it, then start again:\n  {installed.install_command(extra)}",
    )


def _rosetta(machine: Machine, installed: Installation) -> UnsupportedPlatformError:
    return UnsupportedPlatformError(
        "Unsupported platform: this Mac has Apple silicon, but this Python is\n"
        "built for Intel and runs under Rosetta, where MLX cannot reach the GPU.\n"
        f"Found: {machine.describe()} (translated).",
        hint="Install a native arm64 Python and pensieve with it. Homebrew's native home\n"
        "is /opt/homebrew (the one in /usr/local is Intel's):\n"
        "  /opt/homebrew/bin/brew install python@3.13\n"
        "  /opt/homebrew/bin/python3.13 -m venv ~/pensieve\n"
        f"  ~/pensieve/bin/pip install {installed.requirement()}\n"
        "In Finder's Get Info on the terminal, 'Open using Rosetta' should be off.",
    )


def _intel_mac(machine: Machine) -> UnsupportedPlatformError:
    return _unsupported(
        machine,
        "This is an Intel Mac. MLX is not built for Intel Macs, neither for the GPU\n"
        "nor for the CPU, so no --device helps here. Run pensieve on a Mac with M1 or\n"
        "later, or on Linux with --device cpu.",
    )


def _other(machine: Machine) -> UnsupportedPlatformError:
    return _unsupported(
        machine,
        "pensieve cannot run on this system. It also runs on Linux, with --device cpu.",
    )


def _unsupported(machine: Machine, hint: str) -> UnsupportedPlatformError:
    return UnsupportedPlatformError(
        f"Unsupported platform: MLX needs an M1 or later Mac.\nFound: {machine.describe()}.",
        hint=hint,
    )


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return 0


def kernel_values(lines: str) -> dict[str, str]:
    """Return the values of `sysctl` output by name."""
    pairs = (line.partition(": ") for line in lines.splitlines())
    return {name.strip(): value.strip() for name, separator, value in pairs if separator}


def _parse_int(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _sysctl(name: str) -> str:
    """Return one kernel value; empty if there is none of that name."""
    return _sysctl_lines("-n", name).strip()


def _sysctl_lines(*arguments: str) -> str:
    """Return kernel values, one line for each that exists."""
    command = ["/usr/sbin/sysctl", *arguments]
    try:
        return subprocess.run(  # noqa: S603 -- a fixed path and our own few names
            command, capture_output=True, text=True, timeout=5, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _is_installed(distribution: str) -> bool:
    """Look for the folder that installers write.

    importlib.metadata gives the same answer, but its import adds 15 ms to every `pensieve env`.
    """
    pattern = f"{distribution.replace('-', '_')}-*.dist-info"
    return any(next(Path(folder).glob(pattern), None) for folder in sys.path)
