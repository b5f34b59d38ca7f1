"""The warning of `status`, `start` and `claude` if the server's version is not the command's."""

from pensieve import __version__
from pensieve.cli.ui import output
from pensieve.daemon.health_client import Health
from pensieve.daemon.server_record import ServerRecord, restart_command


def warn_of_other_version(record: ServerRecord, health: Health, version: str = __version__) -> None:
    """Print both versions and the restart command. Silent if the server reports no version."""
    if health.version in {"", version}:
        return
    output.warning(
        f"the server is version {health.version}, the command {version}. Restart it with:"
    )
    output.note(f"  {restart_command(record)}")
