"""opencode's configuration. Pure.

Checked with opencode 1.18. It merges configurations, and a variable's over the user's files.
"""

import json
from pathlib import Path

from pensieve.cli.client.target import Target
from pensieve.cli.launch.agent import PROVIDER, Agent, Setup, Snippet, openai_url, output_tokens

AGENT = Agent("opencode", "opencode", "npm install -g opencode-ai", 8500)
# No requests but to the server: no list of hosted models, no update, no plugins for logins.
OFFLINE = {
    "OPENCODE_DISABLE_MODELS_FETCH": "1",
    "OPENCODE_DISABLE_AUTOUPDATE": "1",
    "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
}


def setup(target: Target, _folder: Path) -> Setup:
    config = {**_config(target), "enabled_providers": [PROVIDER], "share": "disabled"}
    return Setup(variables={"OPENCODE_CONFIG_CONTENT": json.dumps(config), **OFFLINE})


def snippet(target: Target) -> Snippet:
    config = {"$schema": "https://opencode.ai/config.json", **_config(target)}
    return Snippet(
        "opencode.json in the project's folder, or ~/.config/opencode/opencode.json",
        json.dumps(config, indent=2, ensure_ascii=False),
    )


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
