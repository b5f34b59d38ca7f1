"""Tells before the start whether machines can share one model, and what that gives."""

from collections.abc import Callable, Sequence
from pathlib import Path

from pensieve.engine.planning.hostfile import Hostfile, choose_backend
from pensieve.engine.planning.mtp_files import config_of
from pensieve.engine.planning.sharding_table import obstacle
from pensieve.errors import HostError, ModelUnsupportedError
from pensieve.hosts.backends import own_backends
from pensieve.hosts.check import HostReport
from pensieve.hosts.ranks import hosts_of
from pensieve.machine import Machine
from pensieve.models.catalog.shared_fit import share_on_mac
from pensieve.settings.resolve import Settings

_LINKS = {
    "ring": "TCP (ring)",
    "jaccl": "RDMA (jaccl)",
    "jaccl-ring": "RDMA (jaccl, as a ring)",
    "nccl": "NCCL",
}


def require_shareable(settings: Settings, folder: Path) -> Hostfile:
    """Return the machines of the hostfile.

    Raises `SettingsError`, and `ModelUnsupportedError` for a model that so many cannot share.
    """
    hostfile = hosts_of(Path(settings.hostfile))
    if reason := obstacle(config_of(folder), len(hostfile.hosts)):
        raise ModelUnsupportedError(f"{folder.name}: {reason}.")
    return hostfile


def require_group(
    settings: Settings,
    folder: Path,
    machine: Machine,
    reports: Sequence[HostReport],
    backends: Callable[[], Sequence[str]] = own_backends,
) -> str:
    """Return what the machines are together, in a line. reports: of the others, without problems.

    Raises `ModelUnsupportedError`, `HostError` and `SettingsError` for what keeps them from it.
    """
    hostfile = require_shareable(settings, folder)
    ranks = len(hostfile.hosts)
    answers = [(report.host, report.answer) for report in reports if report.answer]
    for host, answer in answers:
        _require_equal(host, "chip", answer.chip, machine.chip)
        _require_equal(host, "system", answer.system.partition(",")[0], _system(machine))
    backend = choose_backend(hostfile, [backends(), *(answer.backends for _, answer in answers)])
    own = share_on_mac(folder, settings, machine, ranks)
    if own and not own.context_tokens:
        raise HostError(
            f"A part of {folder.name} needs {own.needs_bytes / 1e9:.1f} GB of this machine.",
            hint="Allow more memory:\n  pensieve config set memory_gb N",
        )
    contexts = [own and own.context_tokens, *(answer.context_tokens for _, answer in answers)]
    least = min((tokens for tokens in contexts if tokens), default=0)
    context = (
        f", about {least:,} tokens of context, by the one with the least memory" if least else ""
    )
    return (
        f"One model over {ranks} machines by {_LINKS[backend]}: each has a part of every layer"
        f"{context}. Experimental: docs/several-macs.md"
    )


def _system(machine: Machine) -> str:
    return machine.describe().partition(",")[0]


def _require_equal(host: str, name: str, there: str, here: str) -> None:
    if there and here and there != here:
        raise HostError(
            f"{host} has another {name} than this machine: {there}, here {here}. Machines that"
            " share a model must compute the same.",
            hint="Run whole copies on them instead:\n  pensieve start --hosts … --replicas",
        )
