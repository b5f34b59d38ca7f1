"""Which device may be used on which machine, and what is said where none may."""

import pytest

from pensieve.errors import UnsupportedPlatformError
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
def test_a_machine_that_can_gets_its_device(
    machine: Machine, requested: Device | None, chosen: Device
) -> None:
    assert choose_device(requested, machine) == chosen


@pytest.mark.parametrize(
    ("machine", "requested", "words"),
    [
        (BARE_LINUX, None, ["M1 or later", "Linux on x86_64", "--device cpu", "pensieve-llm[cpu]"]),
        (BARE_LINUX, None, ["--device gpu", "CUDA", "pensieve-llm[cuda]"]),
        (LINUX_CPU, None, ["--device cpu", "(installed)", "pensieve-llm[cuda]"]),
        (LINUX_CUDA, None, ["--device gpu", "(installed)"]),
        (BARE_LINUX, "cpu", ["--device cpu", "pip install 'pensieve-llm[cpu]'"]),
        (LINUX_CPU, "gpu", ["--device gpu", "CUDA", "pip install 'pensieve-llm[cuda]'"]),
        (ROSETTA, None, ["Rosetta", "/opt/homebrew", "arm64"]),
        (ROSETTA, "cpu", ["Rosetta"]),
        (INTEL_MAC, None, ["M1 or later", "Intel Mac", "macOS 13.6 on x86_64", "16 GiB"]),
        (INTEL_MAC, "cpu", ["Intel Mac", "no --device helps"]),
        (OLD_MACOS, None, ["macOS 14 or later", "macOS 13.6"]),
        (WINDOWS, "cpu", ["M1 or later", "Windows on AMD64", "no way round"]),
    ],
)
def test_a_machine_that_cannot_is_told_what_was_found_and_the_way_round(
    machine: Machine, requested: Device | None, words: list[str]
) -> None:
    with pytest.raises(UnsupportedPlatformError) as refusal:
        choose_device(requested, machine)
    said = f"{refusal.value.message}\n{refusal.value.hint}"
    assert [word for word in words if word not in said] == []
    assert refusal.value.exit_code == 1


@pytest.mark.parametrize(
    "machine", [BARE_LINUX, LINUX_CPU, LINUX_CUDA, ROSETTA, INTEL_MAC, OLD_MACOS, WINDOWS]
)
@pytest.mark.parametrize("requested", [None, "gpu"])
def test_a_refusal_fits_one_screen(machine: Machine, requested: Device | None) -> None:
    try:
        choose_device(requested, machine)
    except UnsupportedPlatformError as refusal:
        lines = f"Error: {refusal.message}\n{refusal.hint}".splitlines()
        assert max(map(len, lines)) <= 80
        assert len(lines) <= 22
    else:
        assert machine is LINUX_CUDA


def test_a_rosetta_mac_is_not_told_to_buy_another() -> None:
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
def test_a_translated_python_is_recognised_by_what_the_kernel_says(
    system: str, architecture: str, kernel: dict[str, str], translated: bool
) -> None:
    assert is_translated(system, architecture, lambda name: kernel.get(name, "")) is translated


def test_the_chip_is_named_as_sysctl_names_it() -> None:
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
def test_a_chip_tells_its_generation(chip: str, generation: int) -> None:
    assert Machine("Darwin", "arm64", "3.14.0", chip=chip).chip_generation == generation


@pytest.mark.parametrize(
    ("macos", "version"),
    [("26.2", (26, 2)), ("16.2", (26, 2)), ("15.7.1", (15, 7)), ("14", (14, 0)), ("", (0, 0))],
)
def test_a_system_is_known_by_its_own_number(macos: str, version: tuple[int, int]) -> None:
    """A Python that was built with an older SDK calls macOS 26 "16"."""
    assert Machine("Darwin", "arm64", "3.14.0", macos=macos).macos_version == version
