"""What MLX is told of the other ranks, by back end; the ring itself is run in test_shards.py."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from pensieve.engine.planning.hostfile import Backend, Rendezvous
from pensieve.engine.ranks.rendezvous import available_backends, join

ADDRESSES = (("192.168.0.1:5000",), ("192.168.0.2:5001",))
DEVICES = ((None, "rdma_en5"), ("rdma_en4", None))


def told(backend: Backend) -> tuple[dict[str, str], Any, dict[str, Any]]:
    """Return MLX's variables, the content of the file that they name, and its arguments."""
    variables: dict[str, str] = {}
    files: list[Any] = []

    def init(**arguments: Any) -> dict[str, Any]:
        variables.update(
            {name: value for name, value in os.environ.items() if name.startswith(("MLX_", "NCCL"))}
        )
        named = variables.pop("MLX_HOSTFILE", None) or variables.pop("MLX_IBV_DEVICES", None)
        files.extend([json.loads(Path(named).read_text())] if named else [None])
        return arguments

    arguments = join(Rendezvous(backend, ADDRESSES, DEVICES), 1, init=init)
    own = {"MLX_RANK", "MLX_JACCL_COORDINATOR", "MLX_JACCL_RING", "MLX_WORLD_SIZE"}
    own |= {"NCCL_HOST_IP", "NCCL_PORT"}
    return {name: variables[name] for name in own & variables.keys()}, files[0], arguments


@pytest.mark.parametrize(
    ("backend", "variables", "file"),
    [
        ("ring", {}, [list(own) for own in ADDRESSES]),
        (
            "jaccl",
            {"MLX_JACCL_COORDINATOR": "192.168.0.1:5000"},
            [list(own) for own in DEVICES],
        ),
        (
            "jaccl-ring",
            {"MLX_JACCL_COORDINATOR": "192.168.0.1:5000", "MLX_JACCL_RING": "1"},
            [list(own) for own in DEVICES],
        ),
        (
            "nccl",
            {"MLX_WORLD_SIZE": "2", "NCCL_HOST_IP": "192.168.0.1", "NCCL_PORT": "5000"},
            None,
        ),
    ],
)
def test_a_backend_gets_its_variables_and_no_fallback(
    backend: Backend, variables: dict[str, str], file: Any
) -> None:
    name = "jaccl" if backend == "jaccl-ring" else backend
    expected = variables | {"MLX_RANK": "1"}
    assert told(backend) == (expected, file, {"strict": True, "backend": name})


def test_environment_and_alarm_are_as_before_afterwards() -> None:
    before, handler = dict(os.environ), signal.getsignal(signal.SIGALRM)
    join(Rendezvous("ring", ADDRESSES), 0, init=lambda **_: None)
    assert dict(os.environ) == before
    assert signal.getsignal(signal.SIGALRM) == handler
    assert signal.alarm(0) == 0


def test_the_ring_is_always_available() -> None:
    assert "ring" in available_backends()
