"""Types of tools that OpenAI runs itself, for the log: it must not repeat a client's own text."""

import logging
from collections.abc import Sequence

_log = logging.getLogger("pensieve.openai")

_KINDS = frozenset(
    [
        "apply_patch",
        "code_interpreter",
        "computer_use_preview",
        "file_search",
        "image_generation",
        "local_shell",
        "mcp",
        "namespace",
        "shell",
        "tool_search",
        "web_search",
        "web_search_preview",
    ]
)


def kind_for_log(kind: object) -> str:
    return kind if isinstance(kind, str) and kind in _KINDS else "unknown"


def log_ignored_tools(types: Sequence[object]) -> None:
    """Write one line for all tools of a request that are left out, since every turn has them."""
    if types:
        kinds = sorted(set(map(kind_for_log, types)))
        _log.info(
            "ignoring %d tools that this server cannot run, of type %s",
            len(types),
            ", ".join(kinds),
        )
