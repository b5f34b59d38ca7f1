"""opencode's configuration. Pure.

Checked with opencode 1.18. It merges configurations, and a variable's over the user's files.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pensieve.cli.client.target import Target
from pensieve.cli.launch.agent import PROVIDER, Agent, Setup, Snippet, openai_url, output_tokens
from pensieve.errors import UsageError
from pensieve.untrusted_json import read_object

CONTENT_VARIABLE = "OPENCODE_CONFIG_CONTENT"
QUIET = (
    *("agent", "auth", "completion", "db", "debug", "export", "import", "mcp", "models"),
    *("plugin", "providers", "session", "stats", "uninstall", "upgrade", "-v"),
)
AGENT = Agent("opencode", "opencode", "npm install -g opencode-ai", 7400, dict.fromkeys(QUIET, 0))
# No requests but to the server: no list of hosted models, no update, no plugins for logins.
OFFLINE = {
    "OPENCODE_DISABLE_MODELS_FETCH": "1",
    "OPENCODE_DISABLE_AUTOUPDATE": "1",
    "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
}


def setup(target: Target, _folder: Path, environ: Mapping[str, str]) -> Setup:
    """Merge the configuration over the one that the user's own variable has, for example its
    permissions. Raises `UsageError` if that is no JSON object.
    """
    own = _own_config(environ.get(CONTENT_VARIABLE, ""))
    ours = {**_config(target), "enabled_providers": [PROVIDER], "share": "disabled"}
    return Setup(variables={CONTENT_VARIABLE: json.dumps(_merged(own, ours)), **OFFLINE})


def snippet(target: Target) -> Snippet:
    config = {"$schema": "https://opencode.ai/config.json", **_config(target)}
    return Snippet(
        "opencode.json in the project's folder, or ~/.config/opencode/opencode.json",
        json.dumps(config, indent=2, ensure_ascii=False),
    )


def _own_config(text: str) -> dict[str, object]:
    if not text.strip():
        return {}
    try:
        return read_object(text)
    except ValueError:
        raise UsageError(
            f"Your {CONTENT_VARIABLE} is not a JSON object, so that it cannot be merged with what"
            " opencode needs here.",
            hint="Write its settings to ~/.config/opencode/opencode.json, then try again:\n"
            f"  unset {CONTENT_VARIABLE}",
        ) from None


def _merged(own: dict[str, object], ours: dict[str, object]) -> dict[str, object]:
    """Return both, ours where they differ; objects are merged, as opencode itself does."""
    merged = dict(own)
    for name, value in ours.items():
        before = own.get(name)
        is_deep = isinstance(before, dict) and isinstance(value, dict)
        merged[name] = _merged(cast("Any", before), cast("Any", value)) if is_deep else value
    return merged


def _config(target: Target) -> dict[str, object]:
    name = f"{PROVIDER}/{target.model}"
    model = {
        "name": target.model,
        "reasoning": target.thinks,
        "tool_call": True,
        "limit": {"context": target.context_tokens, "output": output_tokens(target)},
    }
    return {
        "model": name,
        "small_model": name,
        "provider": {
            PROVIDER: {
                "npm": "@ai-sdk/openai-compatible",
                "name": PROVIDER,
                "options": {"baseURL": openai_url(target), "apiKey": target.api_key},
                "models": {target.model: model},
            }
        },
    }
