"""Tests a machine's limits against values that Macs reported."""

from dataclasses import replace

import pytest

from pensieve.engine.planning.device_limits import (
    device_limits_on,
    recorded_working_set,
    working_set_bytes,
)
from pensieve.machine import GIB, MIB, Machine

# `recommendedMaxWorkingSetSize` in MB, as ggml logs it (2025-2026, macOS 26), by GiB of memory.
RECORDED_MB = {
    8: 5726.63,
    16: 12713.12,
    24: 19069.67,
    32: 26800.60,
    36: 30150.67,
    48: 40200.90,
    64: 55662.79,
    128: 115448.73,
}
# mlx.core.device_info() of a Mac mini (2025).
M4_PRO = {
    "resource_limit": 499_000,
    "max_buffer_length": 30_150_672_384,
    "architecture": "applegpu_g16s",
    "memory_size": 51_539_607_552,
    "max_recommended_working_set_size": 40_200_896_512,
    "device_name": "Apple M4 Pro",
}


def mac(memory_gib: int, macos: str = "26.1", chip: str = "Apple M4", wired_mb: int = 0) -> Machine:
    return Machine(
        "Darwin",
        "arm64",
        "3.14.0",
        macos=macos,
        memory_bytes=memory_gib * GIB,
        chip=chip,
        wired_limit_bytes=wired_mb * MIB,
    )


@pytest.mark.parametrize(("memory_gib", "recorded_mb"), RECORDED_MB.items())
def test_table_equals_the_recorded_values_and_never_exceeds_them(
    memory_gib: int, recorded_mb: float
) -> None:
    """The engine uses the minimum of both, so it must be the table's value."""
    bound = recorded_working_set(memory_gib * GIB, 26)
    assert 0 <= recorded_mb * 10**6 + 5000 - bound < 40_000


def test_older_macos_has_a_smaller_working_set() -> None:
    assert recorded_working_set(24 * GIB, 14) == 16 * GIB
    assert recorded_working_set(64 * GIB, 14) == 48 * GIB


@pytest.mark.parametrize("memory_gib", [8, 16, 18, 24, 32, 36, 48, 64, 96, 128, 192, 256, 512])
def test_engine_limit_equals_planned_limit(memory_gib: int) -> None:
    machine = mac(memory_gib)
    reported = {**M4_PRO, "max_recommended_working_set_size": working_set_bytes(machine) + 10_000}
    assert device_limits_on(machine, "gpu", device_info=reported) == device_limits_on(
        machine, "gpu"
    )


def test_recorded_mac_gets_its_reported_limit() -> None:
    assert device_limits_on(mac(48), "gpu", device_info=M4_PRO) == device_limits_on(mac(48), "gpu")
    assert device_limits_on(mac(48), "gpu").limit_bytes == 40_200_893_890 * 9 // 10


def test_smaller_limit_of_metal_is_used() -> None:
    device_info = {"max_recommended_working_set_size": 4 * GIB}
    assert (
        device_limits_on(mac(48), "gpu", device_info=device_info).limit_bytes == 4 * GIB * 9 // 10
    )


def test_configured_wired_limit_replaces_the_table() -> None:
    assert device_limits_on(mac(24, wired_mb=20_480), "gpu").limit_bytes == 20 * GIB * 9 // 10
    assert working_set_bytes(mac(24, wired_mb=99_999)) == 24 * GIB


def test_small_macs_leave_memory_for_other_programs() -> None:
    assert device_limits_on(mac(8), "gpu").limit_bytes == 4 * GIB
    assert 10.5e9 <= device_limits_on(mac(16), "gpu").limit_bytes <= 11e9
    assert device_limits_on(mac(16, wired_mb=15_000), "gpu").limit_bytes <= 11e9


def test_requested_limit_is_used() -> None:
    assert device_limits_on(mac(16), "gpu", 14 * 10**9, M4_PRO).limit_bytes == 14 * 10**9


@pytest.mark.parametrize(
    ("chip", "macos", "backend"),
    [
        ("Apple M1", "26.2", "metal"),
        ("Apple M4 Max", "26.2", "metal"),
        ("Apple M5", "26.1", "metal"),
        ("Apple M5 Pro", "26.2", "metal_nax"),
        ("Apple M5", "27.0", "metal_nax"),
        ("Apple M6 Ultra", "16.2", "metal_nax"),
        ("Apple M5", "15.7", "metal"),
        ("Apple processor", "26.2", "metal"),
        ("", "", "metal"),
    ],
)
def test_metal_backend_depends_on_chip_and_macos(chip: str, macos: str, backend: str) -> None:
    assert device_limits_on(mac(16, macos, chip), "gpu").backend == backend


def test_cuda_and_cpu_limits() -> None:
    linux = Machine("Linux", "x86_64", "3.13.1", memory_bytes=64 * GIB, has_mlx_cuda=True)
    gpu = device_limits_on(linux, "gpu", device_info={"total_memory": 100 * GIB})
    assert (gpu.backend, gpu.limit_bytes) == ("cuda", 90 * GIB)
    processor = device_limits_on(linux, "cpu")
    assert (processor.backend, processor.limit_bytes, processor.computed_bytes) == (
        "cpu",
        32 * GIB,
        4,
    )
    assert device_limits_on(replace(mac(16), memory_bytes=0), "cpu").computed_bytes == 2
