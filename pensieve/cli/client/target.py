"""Which server the client commands mean: this home's running one, else the one that the settings describe."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pensieve.daemon.server_record import ServerRecord, current
from pensieve.errors import ModelError, ModelUnavailableError
from pensieve.settings.resolve import Settings

if TYPE_CHECKING:
    from pensieve.daemon.health_client import Health

# Of a model of which nothing is known yet.
UNKNOWN_CONTEXT_TOKENS = 32_768


@dataclass(frozen=True, slots=True)
class Target:
    """Where clients go, with which key, for which model. `is_running` False: it is what a start would give.

    context_tokens: how long a prompt and its answer can be; see `measured`. pid: the running server's, None without one.
    is_listening False: the running server still fetches its model, so whoever answers at its address is another program.
    """

    base_url: str
    api_key: str
    model: str
    is_running: bool
    context_tokens: int = UNKNOWN_CONTEXT_TOKENS
    thinks: bool = False  # clients ask it to think
    pid: int | None = None
    is_listening: bool = True

    @property
    def host(self) -> str:
        """The host in `base_url`."""
        from urllib.parse import urlsplit

        return urlsplit(self.base_url).hostname or ""


def find_target(settings: Settings) -> Target:
    """By the lock and the record alone: nothing is asked over the network."""
    if record := current(settings.paths):
        return Target(
            record.base_url,
            settings.api_key,
            record.model,
            is_running=True,
            pid=record.pid,
            is_listening=record.phase == "serving",
        )
    return Target(
        settings.base_url, settings.api_key, served_name(settings.model), is_running=False
    )


def measured(target: Target, settings: Settings) -> Target:
    """`target` with its context and whether it thinks: what the server says, else what the model's files and this machine's
    memory let expect.

    `is_running` is False where a server that has a record does not answer.
    """
    record = current(settings.paths) if target.is_running else None
    health = _asked(record) if record else None
    is_running = health is not None and health.status != "unreachable"
    told = health if health and health.is_well else None
    tokens = (told and told.context_tokens) or _expected_context(settings)
    thinking = told.thinking if told else _expected_thinking(settings)
    return replace(
        target,
        is_running=is_running,
        context_tokens=tokens or UNKNOWN_CONTEXT_TOKENS,
        thinks=is_to_think(settings, thinking),
    )


def is_to_think(settings: Settings, thinking: str) -> bool:
    """Return whether clients should ask the model to think.

    thinking: the server's report. "auto" needs a thought that its budget can close: one without an
    end leaves no room for the answer.
    """
    return settings.thinking == "on" or (settings.thinking == "auto" and thinking == "bounded")


def _asked(record: ServerRecord) -> "Health":
    from pensieve.daemon.health_client import ask

    return ask(record)


def _expected_context(settings: Settings) -> int | None:
    from pensieve.models.catalog.expected_model import planned_context

    try:
        return planned_context(settings)
    except ModelError:
        return None


def _expected_thinking(settings: Settings) -> str:
    if settings.thinking != "auto":
        return ""
    from pensieve.models.catalog.expected_model import planned_thinking

    try:
        return planned_thinking(settings)
    except ModelError:
        return ""


def served_name(model: str) -> str:
    """The name under which `model` would be served."""
    from pensieve.models.catalog.find import find

    try:
        return find(model).name
    except ModelUnavailableError:
        return model
