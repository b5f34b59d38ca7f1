"""Reads hostfiles in the format of `mlx.launch`, and decides how the ranks of a model meet.

`mlx.distributed_config` writes such files. Used by the command line, which refuses a bad one before
anything starts, and by rank 0. No MLX.
"""

import ipaddress
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal, NoReturn, cast, get_args

from pensieve.errors import SettingsError
from pensieve.untrusted_json import read_json

# Of mlx.distributed; "jaccl-ring" is jaccl with cables to two neighbours only.
Backend = Literal["ring", "jaccl", "jaccl-ring", "nccl"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
_FASTEST_FIRST: tuple[Backend, ...] = ("jaccl", "nccl", "ring")
# The first port that mlx.launch uses as well; every address takes the next one.
FIRST_PORT = 32_323
# A mesh of jaccl has no more (its `MAX_PEERS`), and MLX's trackers know of none that worked.
MAX_HOSTS = 8
_MAX_BYTES = 1 << 20
_SSH_NAME = re.compile(r"(?!-)[\w.@:%+-]+", re.ASCII)
_DEVICE_NAME = re.compile(r"[\w.-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Host:
    ssh: str  # its name for ssh
    ips: tuple[str, ...] = ()  # of this host, for the other ranks
    rdma: tuple[str | list[str] | None, ...] = ()  # the devices to each host; None to itself


@dataclass(frozen=True, slots=True)
class Hostfile:
    hosts: tuple[Host, ...]  # in the order of ranks
    backend: Backend | None = None  # None: what all hosts have


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """Where the ranks of a model meet; the same for all of them."""

    backend: Backend
    addresses: tuple[tuple[str, ...], ...]  # each rank's "ip:port"s
    devices: tuple[tuple[str | list[str] | None, ...], ...] = ()  # each rank's, to every other

    @property
    def coordinator(self) -> str:
        """Where rank 0 listens while the others join."""
        return self.addresses[0][0]


def read_hostfile(file: Path) -> Hostfile:
    """Raise SettingsError with what is wrong with the file."""
    try:
        with file.open("rb") as opened:
            content = read_json(opened.read(_MAX_BYTES + 1), max_bytes=_MAX_BYTES)
    except (OSError, ValueError) as error:
        _refuse(f"{file} cannot be read: {error}")
    try:
        return hostfile_from(content)
    except SettingsError as error:
        raise SettingsError(f"{file}: {error.message}", hint=error.hint) from None


def hostfile_from(content: object) -> Hostfile:
    """Raise SettingsError with what is wrong with the content of a hostfile.

    Its `envs` are ignored: some that are recommended for other programs make GPUs hang.
    """
    whole = {"hosts": cast("object", content)} if isinstance(content, list) else content
    fields = _fields(whole)
    listed = fields.get("hosts")
    if not isinstance(listed, list) or not listed:
        _refuse('"hosts" must be a list of hosts')
    entries = cast("list[object]", listed)
    if len(entries) > MAX_HOSTS:
        _refuse(f"{len(entries)} hosts; there can be {MAX_HOSTS}")
    hosts = tuple(_host(entry, rank, len(entries)) for rank, entry in enumerate(entries))
    return Hostfile(hosts, _backend(fields.get("backend") or None))


def choose_backend(hostfile: Hostfile, available: Sequence[Collection[str]]) -> Backend:
    """Return the back end that the hostfile names, else the fastest that every host has.

    available: of each host, what MLX can use there. Raises SettingsError if one is missing.
    """
    if hostfile.backend is None:
        for backend in _FASTEST_FIRST:
            if not _missing(hostfile, available, backend):
                return backend
        _refuse(f"the hosts cannot compute together: {_missing(hostfile, available, 'ring')}")
    if obstacle := _missing(hostfile, available, hostfile.backend):
        _refuse(f"the hosts cannot use {hostfile.backend}: {obstacle}")
    return hostfile.backend


def rendezvous_of(hostfile: Hostfile, backend: Backend, first_port: int = FIRST_PORT) -> Rendezvous:
    ports = count(first_port)
    addresses = tuple(tuple(f"{ip}:{next(ports)}" for ip in host.ips) for host in hostfile.hosts)
    devices = tuple(host.rdma for host in hostfile.hosts) if backend.startswith("jaccl") else ()
    return Rendezvous(backend, addresses, devices)


def _host(entry: object, rank: int, hosts: int) -> Host:
    fields = _fields(entry)
    name = fields.get("ssh")
    if not isinstance(name, str) or not _SSH_NAME.fullmatch(name):
        _refuse(f'host {rank + 1}: "ssh" must be a name for ssh that does not begin with "-"')
    ips = _list(fields.get("ips", []), f'{name}: "ips"')
    devices = _list(fields.get("rdma", []), f'{name}: "rdma"')
    if devices and (len(devices) != hosts or devices[rank] is not None):
        _refuse(
            f'{name}: "rdma" must have one entry for each of the {hosts} hosts, null for itself'
        )
    rdma = tuple(_device(device, name) for device in devices)
    return Host(name, tuple(_ip(ip, name) for ip in ips), rdma)


def _ip(value: object, name: str) -> str:
    """MLX listens on exactly this address, without a password: so no address means all of them."""
    try:
        address = ipaddress.IPv4Address(str(value))
    except ValueError:
        _refuse(f"{name}: {value!r} is not an IPv4 address, which MLX's ring needs")
    if address.is_unspecified or address.is_multicast:
        _refuse(f"{name}: {address} is not the address of one link")
    return str(address)


def _device(value: object, name: str) -> str | list[str] | None:
    if value is None:
        return None
    names = cast("list[object]", value) if isinstance(value, list) else [value]
    if not names or not all(isinstance(one, str) and _DEVICE_NAME.fullmatch(one) for one in names):
        _refuse(f"{name}: {value!r} does not name an RDMA device")
    return cast("str | list[str]", value)


def _backend(value: object) -> Backend | None:
    if value is not None and value not in BACKENDS:
        _refuse(f"the back end {value!r} is none of pensieve's: {', '.join(BACKENDS)}")
    return value


def _missing(hostfile: Hostfile, available: Sequence[Collection[str]], backend: str) -> str | None:
    """Return what keeps the hosts from this back end; None if nothing does."""
    hosts = hostfile.hosts
    for host, names in zip(hosts, available, strict=True):
        if backend.removesuffix("-ring") not in names:
            return f"MLX on {host.ssh} has no {backend.removesuffix('-ring')}"
    needs_ip = hosts if backend == "ring" else hosts[:1]
    if without := next((host.ssh for host in needs_ip if not host.ips), None):
        return f'the hostfile has no "ips" for {without}'
    if backend == "ring" and len({len(host.ips) for host in hosts}) > 1:
        return 'each host needs as many "ips" as the others'
    return _missing_cable(hosts, backend) if backend.startswith("jaccl") else None


def _missing_cable(hosts: Sequence[Host], backend: str) -> str | None:
    total = len(hosts)
    for rank, host in enumerate(hosts):
        others = range(total) if backend == "jaccl" else ((rank - 1) % total, (rank + 1) % total)
        for other in others:
            if other != rank and (not host.rdma or host.rdma[other] is None):
                return f'the hostfile has no "rdma" device from {host.ssh} to {hosts[other].ssh}'
    return None


def _fields(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        _refuse('a host must be an object, such as {"ssh": "mac-a", "ips": ["192.168.0.1"]}')
    return cast("Mapping[str, object]", value)


def _list(value: object, name: str) -> list[object]:
    if not isinstance(value, list):
        _refuse(f"{name} must be a list")
    return cast("list[object]", value)


def _refuse(message: str) -> NoReturn:
    raise SettingsError(message, hint="The format is that of mlx.launch; docs/several-macs.md")
