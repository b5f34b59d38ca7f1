"""Asks other machines whether the settings' model can run there; for `start` and `hosts`."""

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pensieve import __version__
from pensieve.errors import ProgramMissingError
from pensieve.hosts.check import HostReport, examine
from pensieve.hosts.greeting import Question
from pensieve.hosts.model_identity import identity_of, name_of
from pensieve.settings.resolve import Settings

if TYPE_CHECKING:
    from pensieve.models.folder.snapshot import ModelFolder


def examined(hosts: Sequence[str], settings: Settings, model: "ModelFolder") -> list[HostReport]:
    """Raises `ProgramMissingError` if there is no ssh."""
    question = Question(__version__, "check", name_of(model), identity_of(model.folder))
    ssh = shlex.split(settings.ssh_command)
    try:
        return examine(hosts, ssh, question)
    except OSError as error:
        raise ProgramMissingError(
            f"{ssh[0]} does not start: {error.strerror}.",
            hint="Choose another one:\n  pensieve config set ssh_command COMMAND",
        ) from error
