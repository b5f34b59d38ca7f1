"""The memory that a machine gives pensieve, and the attention kernels that MLX has there.

The engine and the front end use the same function, so that plans and behavior agree. Plain
arithmetic, no MLX.
"""

from collections.abc import Mapping
from math import inf
from typing import Any

from pensieve.engine.planning.memory_plan import DeviceLimits
from pensieve.machine import GIB, MODERN_MACOS, Machine
from pensieve.settings.resolve import Device

# macOS alone needs 3 to 4 GB; 16 GB must also hold a browser, an editor and Claude Code.
SMALLEST_MAC_BYTES = 8 * GIB
SMALL_MAC_BYTES = 16 * GIB
SMALL_MAC_LIMIT_BYTES = 10_700 * 10**6
# Metal's recommended working set in percent of memory, by maximum memory; None: two thirds.
WORKING_SETS: tuple[tuple[float, int | None], ...] = (
    (8 * GIB, None),
    (24 * GIB, 74),
    (48 * GIB, 78),
    (127 * GIB, 81),
    (inf, 84),
)
OLD_WORKING_SETS: tuple[tuple[float, int | None], ...] = ((36 * GIB, None), (inf, 75))


def device_limits_on(
    machine: Machine,
    device: Device,
    requested_bytes: int | None = None,
    device_info: Mapping[str, Any] | None = None,
) -> DeviceLimits:
    """Return the limits of this machine.

    `requested_bytes` replaces the limit; `device_info` is MLX's, which only the engine has.
    """
    memory = machine.memory_bytes or SMALL_MAC_BYTES
    info = device_info or {}
    if device == "cpu":
        # On Linux weights and keys are expanded to float32 (engine/model/loading.py).
        computed_bytes = 4 if machine.system == "Linux" else 2
        return DeviceLimits(requested_bytes or memory // 2, "cpu", computed_bytes)
    if machine.kind == "apple_silicon":
        recorded = working_set_bytes(machine)
        working_set = min(recorded, int(info.get("max_recommended_working_set_size", recorded)))
        limit = limit_bytes(memory, working_set)
        return DeviceLimits(requested_bytes or limit, "metal_nax" if machine.has_nax else "metal")
    # An NVIDIA GPU's memory is its own; only MLX tells how much that is.
    limit = int(info.get("total_memory", memory)) * 9 // 10
    return DeviceLimits(requested_bytes or limit, "cuda")


def limit_bytes(memory_bytes: int, working_set_bytes: int) -> int:
    """Return the share of a Mac's working set that pensieve uses."""
    if memory_bytes <= SMALLEST_MAC_BYTES:
        return min(working_set_bytes, memory_bytes // 2)
    if memory_bytes <= SMALL_MAC_BYTES:
        return min(working_set_bytes, SMALL_MAC_LIMIT_BYTES)
    return working_set_bytes * 9 // 10


def working_set_bytes(machine: Machine) -> int:
    """Return the working set that Metal recommends: as configured on this Mac, else as recorded."""
    if machine.wired_limit_bytes:
        return min(machine.wired_limit_bytes, machine.memory_bytes)
    return recorded_working_set(machine.memory_bytes, machine.macos_version[0])


def recorded_working_set(memory_bytes: int, macos: int) -> int:
    """Return `recommendedMaxWorkingSetSize` of a Mac with this memory.

    The shares give what logs of ggml and MLX show, except for the rounding up to a page: 5726.63,
    12713.12, 19069.67, 26800.60, 30150.67, 40200.90, 55662.79 and 115448.73 MB with 8, 16, 24, 32,
    36, 48, 64 and 128 GiB. No record was found of 96 nor of more than 128 GiB, which get the share
    of the next smaller one, and none of macOS 15, which counts as 14. A guess that is too low is
    safe: the engine uses the minimum of this and Metal's value.
    """
    shares = WORKING_SETS if macos >= MODERN_MACOS else OLD_WORKING_SETS
    percent = next(share for max_bytes, share in shares if memory_bytes <= max_bytes)
    return memory_bytes * 2 // 3 if percent is None else memory_bytes * percent // 100
