"""Which server the client commands mean: this home's running one, else the one that the settings describe."""

from dataclasses import dataclass

from pensieve.daemon.record import current
from pensieve.errors import ModelUnavailableError
from pensieve.settings import Settings


@dataclass(frozen=True, slots=True)
class Target:
    """Where clients go, with which key, for which model. `is_running` False: it is what a start would give."""

    base_url: str
    api_key: str
    model: str
    is_running: bool


def find_target(settings: Settings) -> Target:
    """By the lock and the record alone: nothing is asked over the network."""
    if record := current(settings.paths):
        return Target(record.base_url, settings.api_key, record.model, is_running=True)
    return Target(
        settings.base_url, settings.api_key, served_name(settings.model), is_running=False
    )


def served_name(model: str) -> str:
    """The name under which `model` would be served."""
    from pensieve.models.catalog import find

    try:
        return find(model).name
    except ModelUnavailableError:
        return model
