"""Hostfiles in mlx.launch's format: what is read, refused, and how the ranks will meet."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pensieve.engine.planning.hostfile import (
    Host,
    Hostfile,
    choose_backend,
    hostfile_from,
    read_hostfile,
    rendezvous_of,
)
from pensieve.errors import SettingsError

# As mlx.distributed_config writes it.
TWO_MACS = {
    "backend": "jaccl",
    "envs": ["MLX_METAL_FAST_SYNCH=1"],
    "hosts": [
        {"ssh": "mac-a", "ips": ["192.168.0.1"], "rdma": [None, "rdma_en5"]},
        {"ssh": "me@mac-b.local", "ips": ["192.168.0.2"], "rdma": [["rdma_en4"], None]},
    ],
}
ALL = [{"ring", "jaccl"}, {"ring", "jaccl"}]


def two_macs(**changes: Any) -> Hostfile:
    return hostfile_from(TWO_MACS | changes)


def with_first_host(**changes: Any) -> dict[str, Any]:
    first, second = TWO_MACS["hosts"]
    return TWO_MACS | {"hosts": [dict(first) | changes, second]}


def test_a_file_of_mlx_is_read(tmp_path: Path) -> None:
    file = tmp_path / "hosts.json"
    file.write_text(json.dumps(TWO_MACS))
    assert read_hostfile(file) == Hostfile(
        (
            Host("mac-a", ("192.168.0.1",), (None, "rdma_en5")),
            Host("me@mac-b.local", ("192.168.0.2",), (["rdma_en4"], None)),
        ),
        "jaccl",
    )


def test_a_list_of_hosts_names_no_backend() -> None:
    assert hostfile_from([{"ssh": "a"}, {"ssh": "b"}]) == Hostfile((Host("a"), Host("b")))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text", "must be an object"),
        ({}, '"hosts" must be a list'),
        ({"hosts": []}, '"hosts" must be a list'),
        ([{"ssh": f"mac-{n}"} for n in range(9)], "9 hosts; there can be 8"),
        (["mac-a"], "must be an object"),
        ([{}], '"ssh" must be a name'),
        (with_first_host(ssh="-oProxyCommand=evil"), "does not begin with"),
        (with_first_host(ssh="a b"), '"ssh" must be a name'),
        (with_first_host(ips="192.168.0.1"), '"ips" must be a list'),
        (with_first_host(ips=["fe80::1"]), "not an IPv4 address"),
        (with_first_host(ips=["mac-a.local"]), "not an IPv4 address"),
        (with_first_host(ips=["0.0.0.0"]), "not the address of one link"),
        (with_first_host(rdma=["rdma_en5", None]), "null for itself"),
        (with_first_host(rdma=[None]), "one entry for each of the 2 hosts"),
        (with_first_host(rdma=[None, "../en5"]), "does not name an RDMA device"),
        (TWO_MACS | {"backend": "mpi"}, "'mpi' is none of pensieve's"),
    ],
)
def test_a_wrong_hostfile_is_refused_with_its_reason(content: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        hostfile_from(content)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '"' + "x" * (1 << 20) + '"'])
def test_a_file_that_is_no_json_is_refused_by_its_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "hosts.json"
    file.write_text(text)
    with pytest.raises(SettingsError, match=r"hosts\.json cannot be read"):
        read_hostfile(file)


@pytest.mark.parametrize(
    ("hostfile", "available", "expected"),
    [
        (two_macs(), ALL, "jaccl"),
        (two_macs(backend=""), ALL, "jaccl"),
        (two_macs(backend=""), [{"ring", "jaccl"}, {"ring"}], "ring"),
        (hostfile_from(with_first_host(rdma=[]) | {"backend": ""}), ALL, "ring"),
        (two_macs(backend=""), [{"ring", "nccl"}, {"ring", "nccl"}], "nccl"),
        (two_macs(backend="ring"), ALL, "ring"),
    ],
)
def test_the_fastest_backend_that_all_have_is_chosen(
    hostfile: Hostfile, available: list[set[str]], expected: str
) -> None:
    assert choose_backend(hostfile, available) == expected


@pytest.mark.parametrize(
    ("changes", "available", "message"),
    [
        ({}, [{"ring", "jaccl"}, {"ring"}], "MLX on me@mac-b.local has no jaccl"),
        ({"hosts": [{"ssh": "a"}, {"ssh": "b"}], "backend": ""}, ALL, 'no "ips" for a'),
        (
            {"hosts": [{"ssh": "a", "ips": ["10.0.0.1"]}, {"ssh": "b"}]},
            ALL,
            'no "rdma" device from a to b',
        ),
        (
            {
                "backend": "ring",
                "hosts": [
                    {"ssh": "a", "ips": ["10.0.0.1"]},
                    {"ssh": "b", "ips": ["10.0.0.2", "10.0.0.3"]},
                ],
            },
            ALL,
            "as many",
        ),
    ],
)
def test_a_backend_that_a_host_lacks_is_refused(
    changes: Mapping[str, Any], available: list[set[str]], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        choose_backend(two_macs(**changes), available)


def test_a_ring_of_neighbours_needs_no_cable_between_the_others() -> None:
    hosts = [
        {
            "ssh": f"mac-{rank}",
            "ips": [f"10.0.0.{rank}"],
            "rdma": [f"en{other}" if (rank - other) % 4 in {1, 3} else None for other in range(4)],
        }
        for rank in range(4)
    ]
    available = [{"ring", "jaccl"}] * 4
    assert choose_backend(hostfile_from({"backend": "jaccl-ring", "hosts": hosts}), available)
    with pytest.raises(SettingsError, match="from mac-0 to mac-2"):
        choose_backend(hostfile_from({"backend": "jaccl", "hosts": hosts}), available)


def test_ranks_listen_on_the_addresses_of_the_hostfile_alone() -> None:
    meeting = rendezvous_of(two_macs(), "ring", 5000)
    assert meeting.addresses == (("192.168.0.1:5000",), ("192.168.0.2:5001",))
    assert meeting.coordinator == "192.168.0.1:5000"
    assert meeting.devices == ()
    assert rendezvous_of(two_macs(), "jaccl").devices == ((None, "rdma_en5"), (["rdma_en4"], None))
