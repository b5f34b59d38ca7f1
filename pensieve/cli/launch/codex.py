"""Codex's configuration. Pure.

Checked with Codex 0.171. It assumes a window of more than 250,000 tokens for an unknown model, so
the window is set. Features of its hosted service are switched off, and so are tools whose
descriptions take a third of the first request.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from pensieve.cli.client.target import Target
from pensieve.cli.launch.agent import KEY_VARIABLE, PROVIDER, Agent, Setup, Snippet, openai_url

QUIET = (
    *("agents", "app-server", "apply", "archive", "cloud", "completion", "debug", "delete"),
    *("doctor", "exec-server", "features", "help", "login", "logout", "mcp", "plugin"),
    *("sandbox", "unarchive", "update", "-V"),
)
AGENT = Agent(
    "Codex",
    "codex",
    "npm install -g @openai/codex",
    8000,
    {"exec": 5700, "e": 5700, **dict.fromkeys(QUIET, 0)},
)
# Tables of config.toml; the first one has no heading.
Tables = Mapping[str, Mapping[str, object]]

LEAN: Tables = {"features": {"goals": False}, "agents": {"enabled": False}}
# No requests but to the server.
OFFLINE: Tables = {
    "": {"check_for_update_on_startup": False},
    "analytics": {"enabled": False},
    "feedback": {"enabled": False},
    "features": {"plugins": False, "apps": False},
}


def setup(target: Target, folder: Path, _environ: Mapping[str, str]) -> Setup:
    """Return options instead of a file: Codex itself writes the file, for example which folders the
    user trusts.
    """
    key = {"env_key": KEY_VARIABLE}
    options = [*_options(_tables(target, key)), *_options(OFFLINE)]
    return Setup(
        arguments=tuple(each for option in options for each in ("-c", option)),
        variables={"CODEX_HOME": str(folder), KEY_VARIABLE: target.api_key},
    )


def snippet(target: Target) -> Snippet:
    """Return a profile: Codex reads it from a file of its own, on top of config.toml."""
    tables = _tables(target, {"http_headers": {"Authorization": f"Bearer {target.api_key}"}})
    return Snippet(
        "~/.codex/pensieve.config.toml",
        "\n\n".join(_toml(name, values) for name, values in tables.items()),
        "Then run Codex with it:\n  codex --profile pensieve",
    )


def _tables(target: Target, key: Mapping[str, object]) -> Tables:
    return {
        "": {
            "model": target.model,
            "model_provider": PROVIDER,
            "model_context_window": target.context_tokens,
            "web_search": "disabled",
        },
        **LEAN,
        f"model_providers.{PROVIDER}": {
            "name": PROVIDER,
            "base_url": openai_url(target),
            "wire_api": "responses",
            **key,
        },
    }


def _options(tables: Tables) -> list[str]:
    return [
        f"{f'{table}.' if table else ''}{name}={_value(value)}"
        for table, values in tables.items()
        for name, value in values.items()
    ]


def _toml(table: str, values: Mapping[str, object]) -> str:
    rows = [f"{name} = {_value(value)}" for name, value in values.items()]
    return "\n".join([f"[{table}]", *rows] if table else rows)


def _value(value: object) -> str:
    """Write a value of TOML. Its strings are JSON's, but for escaped surrogates."""
    if isinstance(value, dict):
        table = cast("dict[str, object]", value)
        pairs = [f"{name} = {_value(inner)}" for name, inner in table.items()]
        return f"{{ {', '.join(pairs)} }}"
    return json.dumps(value, ensure_ascii=False)
