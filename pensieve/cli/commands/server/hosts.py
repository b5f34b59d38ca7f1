"""`pensieve hosts`: checks machines that are to run the model, by ssh."""

from json import dumps
from typing import Literal

from pensieve.cli.lifecycle.launching import with_hosts
from pensieve.cli.ui import output
from pensieve.errors import UsageError
from pensieve.hosts.check import HostReport, examined, model_of
from pensieve.hosts.group import require_group, require_shareable
from pensieve.machine import inspect
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import Flags
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
    settings, _ = with_hosts(settings_module.resolve(), Flags())
    chosen = [str(KEYS["hosts"].checked(name, "the machine")) for name in names]
    machines = chosen or settings.other_hosts
    if not machines:
        raise UsageError("Which machine?", hint="For example:\n  pensieve hosts check studio.local")
    model = model_of(settings)
    is_here = model.folder.is_dir()
    if not is_here:
        output.note(f"{settings.model} is not on this machine, so its files are not compared.")
    is_group = bool(settings.hostfile) and is_here and not chosen
    if is_group:
        require_shareable(settings, model.folder)
    reports = examined(machines, settings, model)
    _print(model.name, reports, is_json=json)
    if any(each.problem for each in reports):
        return UNUSABLE
    if is_group:
        output.note(require_group(settings, model.folder, inspect(), reports))
    return 0


def _print(model: str, reports: list[HostReport], *, is_json: bool) -> None:
    if is_json:
        output.data(dumps({"model": model, "hosts": [each.as_json for each in reports]}, indent=2))
        return
    for each in reports:
        output.data(each.line)
        if each.fix:
            output.data(f"  {each.fix}")
