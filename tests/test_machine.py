"""The device that each machine may use, and the errors for unsupported machines."""

from pathlib import Path

import pytest

from pensieve.errors import UnsupportedPlatformError
from pensieve.installation import Installation
from pensieve.machine import (
    GIB,
    Machine,
    chip,
    choose_device,
    inspect,
    is_translated,
    kernel_values,
)
from pensieve.settings.resolve import Device

M4 = Machine("Darwin", "arm64", "3.13.1", macos="26.1", memory_bytes=32 * GIB)
OLD_MACOS = Machine("Darwin", "arm64", "3.13.1", macos="13.6", memory_bytes=8 * GIB)
ROSETTA = Machine("Darwin", "x86_64", "3.12.7", macos="15.2", is_rosetta=True)
INTEL_MAC = Machine("Darwin", "x86_64", "3.12.7", macos="13.6", memory_bytes=16 * GIB)
BARE_LINUX = Machine("Linux", "x86_64", "3.11.2", memory_bytes=8 * GIB)
LINUX_CPU = Machine("Linux", "aarch64", "3.11.2", has_mlx_cpu=True)
LINUX_CUDA = Machine("Linux", "x86_64", "3.11.2", has_mlx_cuda=True)
WINDOWS = Machine("Windows", "AMD64", "3.12.0")
CLONE = Installation(Path("/clone/.venv/bin/python"), checkout=Path("/clone"), is_editable=True)
INSTALL_CPU = "/clone/.venv/bin/python -m pip install --editable '/clone[cpu]'"
INSTALL_CUDA = "/clone/.venv/bin/python -m pip install --editable '/clone[cuda]'"


@pytest.mark.parametrize(
    ("machine", "requested", "chosen"),
    [
        (M4, None, "gpu"),
        (M4, "gpu", "gpu"),
        (M4, "cpu", "cpu"),
        (Machine("Darwin", "arm64", "3.13.1", macos="14.0"), None, "gpu"),
        (LINUX_CPU, "cpu", "cpu"),
        (LINUX_CUDA, "gpu", "gpu"),
        (LINUX_CUDA, "cpu", "cpu"),
    ],
)
def test_supported_machines_get_their_device(
    machine: Machine, requested: Device | None, chosen: Device
) -> None:
    assert choose_device(requested, machine) == chosen


@pytest.mark.parametrize(
    ("machine", "requested", "fragments"),
    [
        (BARE_LINUX, None, ["M1 or later", "Linux on x86_64", "--device cpu", INSTALL_CPU]),
        (BARE_LINUX, None, ["--device gpu", "CUDA", INSTALL_CUDA]),
        (LINUX_CPU, None, ["--device cpu", "(installed)", INSTALL_CUDA]),
        (LINUX_CUDA, None, ["--device gpu", "(installed)"]),
        (BARE_LINUX, "cpu", ["--device cpu", INSTALL_CPU]),
        (LINUX_CPU, "gpu", ["--device gpu", "CUDA", INSTALL_CUDA]),
        (
            ROSETTA,
            None,
            ["Rosetta", "/opt/homebrew", "arm64", "~/pensieve/bin/pip install /clone\n"],
        ),
        (ROSETTA, "cpu", ["Rosetta"]),
        (INTEL_MAC, None, ["M1 or later", "Intel Mac", "macOS 13.6 on x86_64", "16 GiB"]),
        (INTEL_MAC, "cpu", ["Intel Mac", "no --device helps"]),
        (OLD_MACOS, None, ["macOS 14 or later", "macOS 13.6"]),
        (WINDOWS, "cpu", ["M1 or later", "Windows on AMD64", "cannot run on this system"]),
    ],
)
def test_unsupported_machines_get_an_error_with_facts_and_advice(
    machine: Machine, requested: Device | None, fragments: list[str]
) -> None:
    with pytest.raises(UnsupportedPlatformError) as refusal:
        choose_device(requested, machine, lambda: CLONE)
    message = f"{refusal.value.message}\n{refusal.value.hint}"
    assert [fragment for fragment in fragments if fragment not in message] == []
    assert refusal.value.exit_code == 1


@pytest.mark.parametrize(
    "machine", [BARE_LINUX, LINUX_CPU, LINUX_CUDA, ROSETTA, INTEL_MAC, OLD_MACOS, WINDOWS]
)
@pytest.mark.parametrize("requested", [None, "gpu"])
def test_an_error_fits_one_screen(machine: Machine, requested: Device | None) -> None:
    try:
        choose_device(requested, machine, lambda: CLONE)
    except UnsupportedPlatformError as refusal:
        lines = f"Error: {refusal.message}\n{refusal.hint}".splitlines()
        assert max(map(len, lines)) <= 80
        assert len(lines) <= 22
    else:
        assert machine is LINUX_CUDA


def test_a_rosetta_error_does_not_advise_another_mac() -> None:
    with pytest.raises(UnsupportedPlatformError) as refusal:
        choose_device(None, ROSETTA)
    assert "Intel Mac" not in f"{refusal.value.message}{refusal.value.hint}"


@pytest.mark.parametrize(
    ("system", "architecture", "kernel", "translated"),
    [
        ("Darwin", "x86_64", {"sysctl.proc_translated": "1"}, True),
        ("Darwin", "x86_64", {"hw.optional.arm64": "1"}, True),
        ("Darwin", "x86_64", {"sysctl.proc_translated": "0"}, False),
        ("Darwin", "x86_64", {}, False),
        ("Darwin", "arm64", {"hw.optional.arm64": "1"}, False),
        ("Linux", "x86_64", {"hw.optional.arm64": "1"}, False),
    ],
)
def test_rosetta_is_detected_by_kernel_values(
    system: str, architecture: str, kernel: dict[str, str], translated: bool
) -> None:
    assert is_translated(system, architecture, lambda name: kernel.get(name, "")) is translated


def test_the_chip_name_comes_from_sysctl() -> None:
    recorded = {"machdep.cpu.brand_string": "Apple M4"}
    assert chip(lambda name: recorded.get(name, "")) == "Apple M4"
    assert chip(lambda _: "")


def test_this_machine_can_be_inspected() -> None:
    machine = inspect()
    assert machine.system
    assert machine.memory_bytes > 0
    assert machine.python in machine.describe()


# `sysctl machdep.cpu.brand_string iogpu.wired_limit_mb`, as macOS 26 prints it; the second is
# absent before macOS 14.
SYSCTL = "machdep.cpu.brand_string: Apple M4 Pro\niogpu.wired_limit_mb: 20480\n"


def test_kernel_values_are_read_by_name() -> None:
    assert kernel_values(SYSCTL) == {
        "machdep.cpu.brand_string": "Apple M4 Pro",
        "iogpu.wired_limit_mb": "20480",
    }
    assert kernel_values("sysctl: unknown oid\n\n") == {"sysctl": "unknown oid"}
    assert kernel_values("") == {}


@pytest.mark.parametrize(
    ("chip", "generation"),
    [("Apple M1", 1), ("Apple M4 Max", 4), ("Apple M10 Ultra", 10), ("Apple A18", 0), ("", 0)],
)
def test_the_chip_generation_is_parsed_from_its_name(chip: str, generation: int) -> None:
    assert Machine("Darwin", "arm64", "3.14.0", chip=chip).chip_generation == generation


@pytest.mark.parametrize(
    ("macos", "version"),
    [("26.2", (26, 2)), ("16.2", (26, 2)), ("15.7.1", (15, 7)), ("14", (14, 0)), ("", (0, 0))],
)
def test_macos_16_counts_as_26(macos: str, version: tuple[int, int]) -> None:
    """A Python built with an older SDK reports macOS 26 as 16."""
    assert Machine("Darwin", "arm64", "3.14.0", macos=macos).macos_version == version
