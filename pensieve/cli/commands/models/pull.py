"""`pensieve pull`: downloads a model, or verifies and repairs an installed one."""

import shlex
import subprocess
from collections.abc import Sequence
from json import dumps

from pensieve.cli.model_facts import is_served, source_of
from pensieve.cli.ui import output, progress
from pensieve.daemon.server_record import require
from pensieve.engine.planning.mtp_files import config_of, is_head
from pensieve.errors import ModelError
from pensieve.isolation import python
from pensieve.models.catalog.sources import EmbeddedModel, HubModel
from pensieve.models.fetching.fetch import fetch, repair
from pensieve.models.folder.architecture_support import model_for_head
from pensieve.models.folder.installed import InstalledModel, installed_model
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import LOCAL, Settings
from pensieve.settings.spec import KEYS
from pensieve.sleep_blocker import awake, awake_command


def pull(name: str, /, *, hosts: str | None = None, json: bool = False) -> int:
    """Download a model, or verify and repair one that is here.

    For example:
      pensieve pull qwen3.5-9b
      pensieve pull mlx-community/Llama-3.2-3B-Instruct-4bit
      pensieve pull qwen3.5-9b --hosts studio.local

    An interrupted download resumes.

    Parameters
    ----------
    name
        A name that `pensieve models` lists, or a Hugging Face repository (owner/name).
    hosts
        Download it on these machines instead, by ssh, with commas between.
    json
        Print one JSON object when it is done.
    """
    settings = settings_module.resolve()
    source = source_of(name)
    if hosts is not None:
        return _pull_there(hosts, [source.name, *(["--json"] if json else [])], settings)
    model = installed_model(source, settings.paths.models)
    with awake(awake_command(is_enabled=settings.keep_awake)):
        repaired = _download_or_repair(source, model, settings)
    result = {
        "name": source.name,
        "repo": source.repo,
        "folder": str(model.folder),
        "was_here": model.is_here,
        "fetched_anew": list(repaired),
    }
    output.data(dumps(result, indent=2) if json else _message(source.name, model, repaired))
    return 0


def _pull_there(hosts: str, arguments: Sequence[str], settings: Settings) -> int:
    """Run the command on other machines, one after another; return the first failure's code."""
    KEYS["hosts"].checked(hosts, "--hosts")
    for host in (each.strip() for each in hosts.split(",")):
        output.note(f"{host}:")
        output.flush()
        if code := _call(host, ["pull", *arguments], settings):
            return code
    return 0


def _call(host: str, arguments: Sequence[str], settings: Settings) -> int:
    """Run pensieve there; on this machine without ssh. Raises `ProgramMissingError`."""
    from pensieve.hosts.check import ssh_missing
    from pensieve.hosts.ssh import command_line

    ssh = shlex.split(settings.ssh_command)
    if host == LOCAL:
        return subprocess.call(python("-m", "pensieve", *arguments))  # noqa: S603
    try:
        return subprocess.call(command_line(ssh, host, arguments))  # noqa: S603
    except OSError as error:
        raise ssh_missing(ssh, error) from error


def _download_or_repair(
    source: HubModel | EmbeddedModel, model: InstalledModel, settings: Settings
) -> tuple[str, ...]:
    """Return the names of damaged files that were downloaded again. Raises `ModelError`."""
    progress_view = progress.for_terminal()
    try:
        if not model.is_here:
            fetch(source, settings.paths, progress_view, takes_heads=True)
            return ()
        require(settings.paths)  # without a record it is unknown which model is served
        if is_served(model, settings):
            raise ModelError(
                f"{source.name} is being served; files in use cannot be checked.",
                hint="Stop the server for the check:\n"
                f"  pensieve stop && pensieve pull {source.name} && pensieve start",
            )
        return repair(source, settings.paths, progress_view)
    finally:
        progress_view.end()


def _message(name: str, model: InstalledModel, repaired: tuple[str, ...]) -> str:
    if not model.is_here and is_head(config_of(model.folder)):
        served = model_for_head(model.source.repo)
        return (
            f"{name} is downloaded. It drafts tokens for its model from that one's next start on:\n"
            f"  pensieve start --model {served}"
        )
    if not model.is_here:
        return f"{name} is downloaded. Serve it:\n  pensieve start --model {name}"
    if repaired:
        return f"{name} was damaged and is repaired: {', '.join(repaired)}."
    return f"{name} is here; every file matches its published hash."
