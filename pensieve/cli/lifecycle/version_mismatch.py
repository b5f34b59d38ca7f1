"""What `status`, `start` and `claude` say where the server that runs is of another version than the command."""

from pensieve import __version__
from pensieve.cli.ui import output
from pensieve.daemon.health_client import Health
from pensieve.daemon.server_record import ServerRecord


def warn_of_other_version(record: ServerRecord, health: Health, version: str = __version__) -> None:
    """Say both versions and what replaces the server; nothing where they are the same or the server does not tell."""
    if health.version in {"", version}:
        return
    output.warning(f"the server is {health.version}, this is {version}. To have it replaced:")
    output.note(f"  {restart_command(record)}")


def restart_command(record: ServerRecord) -> str:
    """Return what starts the server anew: a service is launchd's to start."""
    return "brew services restart pensieve" if record.service else "pensieve restart"
