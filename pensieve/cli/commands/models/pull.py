"""`pensieve pull`: fetches a model ahead of `start`, and repairs one whose files are not what was published."""

from json import dumps

from pensieve.cli.model_facts import is_served, source_of
from pensieve.cli.ui import output, progress
from pensieve.errors import ModelError
from pensieve.models.catalog.sources import EmbeddedModel, HubModel
from pensieve.models.fetching.fetch import fetch, repair
from pensieve.models.folder.installed import InstalledModel, installed_model
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import Settings
from pensieve.sleep_blocker import awake, awake_command


def pull(name: str, /, *, json: bool = False) -> int:
    """Fetch a model; or check one that is here, and fetch anew what is damaged.

    For example:
      pensieve pull qwen3.5-9b
      pensieve pull mlx-community/Llama-3.2-3B-Instruct-4bit

    A fetch that was broken off goes on where it was.

    Parameters
    ----------
    name
        A name that `pensieve models` lists, or a Hugging Face repository (owner/name).
    json
        Print one JSON object when it is done.
    """
    settings = settings_module.resolve()
    source = source_of(name)
    model = installed_model(source, settings.paths.models)
    with awake(awake_command(is_wanted=settings.keep_awake)):
        mended = _pulled(source, model, settings)
    told = {
        "name": source.name,
        "repo": source.repo,
        "folder": str(model.folder),
        "was_here": model.is_here,
        "fetched_anew": list(mended),
    }
    output.data(dumps(told, indent=2) if json else _said(source.name, model, mended))
    return 0


def _pulled(
    source: HubModel | EmbeddedModel, model: InstalledModel, settings: Settings
) -> tuple[str, ...]:
    """The names of files that were damaged and are fetched anew."""
    shown = progress.for_terminal()
    try:
        if not model.is_here:
            fetch(source, settings.paths, shown)
            return ()
        if is_served(model, settings):
            raise ModelError(
                f"{source.name} is being served, and its files are in use.",
                hint="Check them when it is not:\n"
                f"  pensieve stop && pensieve pull {source.name} && pensieve start",
            )
        return repair(source, settings.paths, shown)
    finally:
        shown.end()


def _said(name: str, model: InstalledModel, mended: tuple[str, ...]) -> str:
    if not model.is_here:
        return f"{name} is here. Serve it:\n  pensieve start --model {name}"
    if mended:
        return f"{name} was damaged ({', '.join(mended)}) and is whole again."
    return f"{name} is here, and every file of it is as it was published."
