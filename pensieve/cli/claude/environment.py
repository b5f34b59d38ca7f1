"""Environment variables for Claude Code and other Anthropic clients. Pure; the names never vary.

Checked with Claude Code 2.1.332. It assumes a million tokens of context for an unknown model, so
the window is set. Features of its hosted service are switched off, and so is what costs a local
model thousands of tokens.
"""

from collections.abc import Mapping

from pensieve.cli.client.target import Target

KEY_VARIABLES = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
# Claude Code's tiers too: without them its aliases and sub-agents request hosted models.
MODEL_VARIABLES = (
    "ANTHROPIC_MODEL",
    "ANTHROPIC_DEFAULT_OPUS_MODEL",
    "ANTHROPIC_DEFAULT_SONNET_MODEL",
    "ANTHROPIC_DEFAULT_HAIKU_MODEL",
    "ANTHROPIC_DEFAULT_FABLE_MODEL",
    "ANTHROPIC_SMALL_FAST_MODEL",
    "CLAUDE_CODE_SUBAGENT_MODEL",
)
# Other providers, which would override the base URL.
PROVIDERS = {
    "CLAUDE_CODE_USE_BEDROCK": "0",
    "CLAUDE_CODE_USE_VERTEX": "0",
    "CLAUDE_CODE_USE_FOUNDRY": "0",
}
# No requests but to the server, and no telemetry.
OFFLINE = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_FEEDBACK_COMMAND": "1",
}
# System turns within a conversation and context edits invalidate cached prefixes.
NO_CAPABILITIES = "-mid_conv_system,-mid_conv_tool_change,-context_management"
# For models that do not think, or whose thinking has no limit.
NO_THINKING = "-effort,-adaptive_thinking"
# Keeps prompts identical across turns and sessions, so that their prefixes stay cached.
STABLE = {
    "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
    "CLAUDE_CODE_TOTAL_TOKENS_REMINDER": "off",
    "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1",
}
# Tools and descriptions that are of no use to a small model.
LEAN = {
    "CLAUDE_CODE_WORKFLOWS": "0",
    "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
    "CLAUDE_CODE_DISABLE_CRON": "1",
    "CLAUDE_CODE_DISABLE_AGENT_VIEW": "1",
    "CLAUDE_CODE_DISABLE_EXPLORE_PLAN_AGENTS": "1",
}
# A long prompt can take minutes on one machine; the server sends pings meanwhile.
TIMEOUTS = {
    "API_TIMEOUT_MS": "3600000",
    "CLAUDE_STREAM_IDLE_TIMEOUT_MS": "1800000",
    "API_FORCE_IDLE_TIMEOUT": "false",
}

MAX_OUTPUT_TOKENS = 8192
# The client compacts a conversation at the window less its longest answer and this many tokens.
COMPACTION_TOKENS = 13_000
# Below it the client would compact constantly. It still compacts a prompt that is too long.
MIN_COMPACTED_TOKENS = 8192


def variables(target: Target, *, is_lite: bool = False) -> dict[str, str]:
    """Return names and values. The key has both names, since clients read one or the other."""
    return {
        "ANTHROPIC_BASE_URL": target.base_url,
        **({"NODE_EXTRA_CA_CERTS": target.ca_file} if target.ca_file else {}),
        **dict.fromkeys(KEY_VARIABLES, target.api_key),
        **dict.fromkeys(MODEL_VARIABLES, target.model),
        **_window(target.context_tokens),
        **PROVIDERS,
        **OFFLINE,
        **STABLE,
        **_thinking(is_on=target.thinks),
        **LEAN,
        **TIMEOUTS,
        "CLAUDE_CODE_SIMPLE": _switch(is_on=is_lite),
    }


def _thinking(*, is_on: bool) -> Mapping[str, str]:
    without = NO_CAPABILITIES if is_on else f"{NO_CAPABILITIES},{NO_THINKING}"
    return {
        "CLAUDE_CODE_MODEL_CAPABILITIES": without,
        "CLAUDE_CODE_DISABLE_THINKING": _switch(is_on=not is_on),
    }


def _window(context_tokens: int) -> Mapping[str, str]:
    output_tokens = min(MAX_OUTPUT_TOKENS, context_tokens // 8)
    compacted_at = context_tokens - output_tokens - COMPACTION_TOKENS
    return {
        "CLAUDE_CODE_MAX_CONTEXT_TOKENS": str(context_tokens),
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(output_tokens),
        "DISABLE_AUTO_COMPACT": _switch(is_on=compacted_at < MIN_COMPACTED_TOKENS),
    }


def _switch(*, is_on: bool) -> str:
    return "1" if is_on else "0"
