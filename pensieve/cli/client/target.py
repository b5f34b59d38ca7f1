"""The server that client commands address: the running one, else the one in the settings."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pensieve.credentials.trust import SYSTEM_TRUST, Trust, authority_file
from pensieve.daemon.server_record import ServerRecord, current
from pensieve.errors import ModelError, ModelUnavailableError
from pensieve.paths import Paths
from pensieve.settings.resolve import Settings

if TYPE_CHECKING:
    from pensieve.cli.client.connection import Server
    from pensieve.daemon.health_client import Health

# For a model without any known facts.
UNKNOWN_CONTEXT_TOKENS = 32_768


@dataclass(frozen=True, slots=True)
class Target:
    base_url: str
    api_key: str
    model: str
    is_running: bool  # False: the values are those that a start would give
    context_tokens: int = UNKNOWN_CONTEXT_TOKENS  # of prompt and answer together; see `measured`
    thinks: bool = False  # clients ask it to think
    pid: int | None = None  # of the running server
    direct_url: str = ""  # for commands, which verify an https server by `trust`
    trust: Trust = SYSTEM_TRUST
    ca_file: str = ""  # that other programs need to verify it
    # False: the server still downloads its model, so another program may answer at its address.
    is_listening: bool = True

    @property
    def server(self) -> "Server":
        from pensieve.cli.client.connection import Server

        return Server(self.direct_url or self.base_url, self.api_key, self.pid, self.trust)

    @property
    def host(self) -> str:
        from urllib.parse import urlsplit

        return urlsplit(self.base_url).hostname or ""


def find_target(settings: Settings) -> Target:
    """Use the lock and the record only; makes no request."""
    if record := current(settings.paths):
        return target_of(record, settings)
    return Target(
        settings.base_url,
        settings.api_key,
        served_name(settings.model),
        is_running=False,
        trust=Trust(authority=settings.tls_ca or settings.tls_certificate),
        ca_file=authority_file(settings.tls_ca, settings.tls_certificate),
    )


def target_of(record: ServerRecord, settings: Settings) -> Target:
    return Target(
        record.base_url,
        settings.api_key,
        record.model,
        is_running=True,
        pid=record.pid,
        is_listening=record.phase == "serving",
        direct_url=record.direct_url,
        trust=record.trust,
        ca_file=authority_file(settings.tls_ca, settings.tls_certificate)
        if record.certificate
        else "",
    )


def measured(target: Target, settings: Settings) -> Target:
    """Return `target` with context length and thinking.

    Both come from the server, else from the model's files and this machine's memory. `is_running`
    becomes False if a server with a record does not answer.
    """
    record = current(settings.paths) if target.is_running else None
    health = _ask_health(record) if record else None
    is_running = health is not None and health.status != "unreachable"
    report = health if health and health.is_well else None
    tokens = (report and report.context_tokens) or _expected_context(settings)
    thinking = report.thinking if report else _expected_thinking(settings)
    return replace(
        target,
        is_running=is_running,
        context_tokens=tokens or UNKNOWN_CONTEXT_TOKENS,
        thinks=is_to_think(settings, thinking),
    )


def is_to_think(settings: Settings, thinking: str) -> bool:
    """Return whether clients should ask the model to think.

    thinking: the server's report. "auto" requires thinking that a budget can end; without a limit
    thinking leaves no context for the answer.
    """
    return settings.thinking == "on" or (settings.thinking == "auto" and thinking == "bounded")


def _ask_health(record: ServerRecord) -> "Health":
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
    """Return the name under which `model` would be served."""
    from pensieve.models.catalog.find import find

    try:
        return find(model).name
    except ModelUnavailableError:
        return model


def require_servable(model: str, paths: Paths) -> None:
    """Raise `ModelError` if no server could serve `model`, as far as that is known without the
    network.
    """
    from pensieve.models.catalog.find import find
    from pensieve.models.fetching.fetch import check_here

    check_here(find(model), paths)
