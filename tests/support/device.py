"""The MLX device of the tests: `PENSIEVE_TEST_DEVICE`, "gpu" or "cpu" (default)."""

import os
from typing import cast

import mlx.core as mx

from pensieve.engine.client.launch import worker_variables
from pensieve.settings.resolve import Device

DEVICE = cast("Device", os.environ.get("PENSIEVE_TEST_DEVICE") or "cpu")
if DEVICE not in {"gpu", "cpu"}:
    raise ValueError(f"PENSIEVE_TEST_DEVICE is {DEVICE!r}; it may be gpu or cpu")


def use_device() -> None:
    """Set the process's default device and a worker's precision.

    Call it before importing mlx-lm, which makes its stream.
    """
    if DEVICE == "gpu":
        os.environ |= worker_variables(DEVICE)
    mx.set_default_device(mx.gpu if DEVICE == "gpu" else mx.cpu)
