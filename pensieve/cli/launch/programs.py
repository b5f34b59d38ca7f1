"""What programs without a launcher of ours need: variables of a shell, or a part of a file. Pure.

The files of Zed and Continue follow their documentation; llm was tried.
"""

import json
from collections.abc import Mapping

from pensieve.cli.client.target import Target
from pensieve.cli.launch.agent import PROVIDER, Snippet, openai_url, output_tokens


def openai_variables(target: Target) -> Mapping[str, str]:
    """Return the variables of OpenAI's clients, LangChain and litellm."""
    return {
        "OPENAI_BASE_URL": openai_url(target),
        "OPENAI_API_BASE": openai_url(target),
        "OPENAI_API_KEY": target.api_key,
    }


def zed(target: Target) -> Snippet:
    model = {
        "name": target.model,
        "max_tokens": target.context_tokens,
        "max_output_tokens": output_tokens(target),
        "capabilities": {
            "tools": True,
            "images": False,
            "parallel_tool_calls": True,
            "prompt_cache_key": True,
            "interleaved_reasoning": target.thinks,
        },
    }
    provider = {"api_url": openai_url(target), "available_models": [model]}
    settings = {"language_models": {"openai_compatible": {PROVIDER: provider}}}
    return Snippet(
        "~/.config/zed/settings.json",
        json.dumps(settings, indent=2, ensure_ascii=False),
        f"Then give Zed this key in its agent settings:\n  {target.api_key}",
    )


def continue_dev(target: Target) -> Snippet:
    """Return YAML, of which JSON's strings are a part."""
    rows = [
        "models:",
        f"  - name: {_quoted(target.model)}",
        "    provider: openai",
        f"    model: {_quoted(target.model)}",
        f"    apiBase: {_quoted(openai_url(target))}",
        f"    apiKey: {_quoted(target.api_key)}",
        "    roles: [chat, edit, apply]",
        "    capabilities: [tool_use]",
        "    defaultCompletionOptions:",
        f"      contextLength: {target.context_tokens}",
        f"      maxTokens: {output_tokens(target)}",
    ]
    return Snippet(
        "~/.continue/config.yaml, which needs a `name`, a `version` and `schema: v1` as well",
        "\n".join(rows),
    )


def llm(target: Target) -> Snippet:
    rows = [
        f"- model_id: {_quoted(target.model)}",
        f"  model_name: {_quoted(target.model)}",
        f"  api_base: {_quoted(openai_url(target))}",
        f"  api_key_name: {PROVIDER}",
        "  supports_tools: true",
        "  supports_schema: true",
    ]
    return Snippet(
        "extra-openai-models.yaml in the folder of `llm logs path`",
        "\n".join(rows),
        f"Then store this key by `llm keys set {PROVIDER}`:\n  {target.api_key}",
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
