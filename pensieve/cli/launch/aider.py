"""aider's configuration. Pure.

Checked with aider 0.86. It loads a project's `.env` over the environment, so `setup` passes options
instead; only the key is a variable, to keep it out of the list of processes. aider's own names of
variables leave the user's OPENAI_API_KEY as it is. litellm prefers OPENAI_BASE_URL to what
`--openai-api-base` sets, hence `--set-env`.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from pensieve.cli.client.target import Target
from pensieve.cli.launch.agent import Agent, Setup, openai_url, output_tokens

AGENT = Agent("aider", "aider", "uv tool install --python 3.12 aider-chat", 1800)
METADATA = "model-metadata.json"
KEY = "AIDER_OPENAI_API_KEY"
# Keeps litellm from fetching a list of prices.
OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
QUIET = ("--no-check-update", "--no-analytics", "--no-show-release-notes")
# A long prompt can take minutes on one machine.
TIMEOUT_S = 3600


def setup(target: Target, folder: Path, _environ: Mapping[str, str]) -> Setup:
    name = _name(target)
    options = {
        "--model": name,
        "--weak-model": name,
        "--editor-model": name,
        "--openai-api-base": openai_url(target),
        "--set-env": f"OPENAI_BASE_URL={openai_url(target)}",
        "--model-metadata-file": str(folder / METADATA),
        "--timeout": str(TIMEOUT_S),
    }
    return Setup(
        arguments=(
            *(each for pair in options.items() for each in pair),
            *QUIET,
            "--no-show-model-warnings",
        ),
        variables={KEY: target.api_key, **OFFLINE},
        files={METADATA: json.dumps({name: _metadata(target)})},
    )


def variables(target: Target) -> Mapping[str, str]:
    """Return what a shell needs for aider."""
    return {
        **dict.fromkeys(("AIDER_MODEL", "AIDER_WEAK_MODEL", "AIDER_EDITOR_MODEL"), _name(target)),
        "AIDER_OPENAI_API_BASE": openai_url(target),
        "AIDER_SET_ENV": f"OPENAI_BASE_URL={openai_url(target)}",
        KEY: target.api_key,
        "AIDER_SHOW_MODEL_WARNINGS": "false",
        **OFFLINE,
    }


def _name(target: Target) -> str:
    return f"openai/{target.model}"


def _metadata(target: Target) -> Mapping[str, object]:
    return {
        "max_input_tokens": target.context_tokens,
        "max_output_tokens": output_tokens(target),
        "max_tokens": output_tokens(target),
        "input_cost_per_token": 0,
        "output_cost_per_token": 0,
        "litellm_provider": "openai",
        "mode": "chat",
    }
