"""Types of tools that OpenAI runs itself, for the log: it must not repeat a client's own text."""

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
