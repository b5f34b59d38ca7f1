"""The worker's environment variables, by device and system."""

import pytest

from pensieve.engine.client.launch import worker_variables


def test_macos_gpu_worker_gets_the_relaxed_timeout() -> None:
    assert worker_variables("gpu", "darwin")["AGX_RELAX_CDM_CTXSTORE_TIMEOUT"] == "1"
    assert worker_variables("gpu", "darwin")["MLX_METAL_FAST_SYNCH"] == "0"
    assert "AGX_RELAX_CDM_CTXSTORE_TIMEOUT" not in worker_variables("gpu", "linux")


@pytest.mark.parametrize("platform", ["darwin", "linux"])
def test_gpu_worker_multiplies_in_full_precision(platform: str) -> None:
    assert worker_variables("gpu", platform)["MLX_ENABLE_TF32"] == "0"


@pytest.mark.parametrize("platform", ["darwin", "linux"])
def test_cpu_worker_does_not_compile_graphs(platform: str) -> None:
    assert worker_variables("cpu", platform)["MLX_DISABLE_COMPILE"] == "1"


def test_macos_cpu_worker_preloads_no_blas() -> None:
    assert "LD_PRELOAD" not in worker_variables("cpu", "darwin")
