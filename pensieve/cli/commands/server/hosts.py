"""`pensieve hosts`: checks machines that are to run the model, by ssh."""

from json import dumps
from typing import Literal

from pensieve.cli.lifecycle.host_check import examined
from pensieve.cli.ui import output
from pensieve.errors import UsageError
from pensieve.models.catalog.find import find
from pensieve.models.catalog.sources import LocalModel
from pensieve.models.folder.snapshot import ModelFolder, folder_of, is_present
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import LOCAL, Settings
from pensieve.settings.spec import KEYS

UNUSABLE = 69


def hosts(what: Literal["check"] = "check", /, *names: str, json: bool = False) -> int:
    """Check another machine that is to run the model, by ssh.

    For example:
      pensieve hosts check studio.local
      pensieve start --hosts studio.local

    The other machine needs pensieve, the model and your ssh key. Each thing that
    is missing is named with the command that fixes it.

    Parameters
    ----------
    what
        check, the default.
    names
        Machines as ssh takes them; the default is the setting hosts.
    json
        Print one JSON object instead.
    """
    settings = settings_module.resolve()
    chosen = [str(KEYS["hosts"].checked(name, "the machine")) for name in names]
    machines = chosen or [host for host in settings.remote_hosts if host != LOCAL]
    if not machines:
        raise UsageError("Which machine?", hint="For example:\n  pensieve hosts check studio.local")
    model = _model(settings)
    if not model.name:
        output.note(f"{settings.model} is not on this machine, so it is not looked for there.")
    reports = examined(machines, settings, model)
    if json:
        output.data(
            dumps({"model": model.name, "hosts": [each.as_json for each in reports]}, indent=2)
        )
    else:
        for each in reports:
            output.data(each.line)
            if each.fix:
                output.data(f"  {each.fix}")
    return UNUSABLE if any(each.problem for each in reports) else 0


def _model(settings: Settings) -> ModelFolder:
    """Return the settings' model; without a name if it is not here, and cannot be compared."""
    source = find(settings.model)
    folder = folder_of(source, settings.paths.models)
    if not is_present(source, settings.paths.models):
        return ModelFolder("", "", folder)
    repo = str(folder) if isinstance(source, LocalModel) else source.repo
    return ModelFolder(source.name, repo, folder)
