"""The worker's environment, by device and system."""

import pytest

from pensieve.engine.client.launch import worker_variables


def test_on_a_mac_the_gpu_is_given_more_time_beside_the_screen() -> None:
    assert worker_variables("gpu", "darwin") == {"AGX_RELAX_CDM_CTXSTORE_TIMEOUT": "1"}


def test_with_cuda_the_environment_is_as_it_was() -> None:
    assert worker_variables("gpu", "linux") == {}


@pytest.mark.parametrize("platform", ["darwin", "linux"])
def test_on_a_processor_no_graph_is_compiled_with_the_systems_compiler(platform: str) -> None:
    assert worker_variables("cpu", platform)["MLX_DISABLE_COMPILE"] == "1"


def test_on_a_mac_no_library_is_put_before_the_systems_blas() -> None:
    assert "LD_PRELOAD" not in worker_variables("cpu", "darwin")
