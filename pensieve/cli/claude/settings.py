"""The `--settings` that `pensieve claude` passes to Claude Code, merged with the user's own.

Claude Code uses only the last `--settings`, so there must be one. The user's value wins over ours.
Pure, except that it reads the files of settings.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

from pensieve.errors import UsageError
from pensieve.untrusted_json import read_json

OPTION = "--settings"
# disableAutoMode: that mode asks the hosted service whether each command is safe. deny: tools whose
# descriptions take half of the first request, for work that a local model does in the conversation
# itself. skipWebFetchPreflight: the preflight calls claude.ai.
OURS: Mapping[str, object] = {
    "permissions": {
        "disableAutoMode": "disable",
        "deny": [
            "Agent",
            "AskUserQuestion",
            "ListAgents",
            "ReportFindings",
            "ScheduleWakeup",
            "Skill",
            "Workflow",
        ],
    },
    "skipWebFetchPreflight": True,
}


def with_settings(
    arguments: Sequence[str], environment: Mapping[str, str], *, effort: str | None = None
) -> list[str]:
    """Return Claude Code's arguments with one `--settings` in front, merged with the user's.

    environment: repeated in the settings, because the `env` of a user's settings file overrides the
    environment itself. effort: the initial one. Raises `UsageError` for unreadable settings.
    """
    rest, theirs = _extract_settings(list(arguments))
    ours = {"env": dict(environment), **OURS, **({"effortLevel": effort} if effort else {})}
    merged = _merge(ours, _read(theirs)) if theirs is not None else ours
    return [OPTION, json.dumps(merged, separators=(",", ":")), *rest]


def settings_files(environ: Mapping[str, str]) -> list[Path]:
    """Return the user's and the project's settings files; later ones override."""
    own = environ.get("CLAUDE_CONFIG_DIR") or Path(environ.get("HOME") or Path.home(), ".claude")
    here = Path(".claude")
    return [Path(own, "settings.json"), here / "settings.json", here / "settings.local.json"]


def variables_in_files(files: Sequence[Path]) -> dict[str, str]:
    """Return the `env` of all files; unreadable files are skipped."""
    found: dict[str, str] = {}
    for file in files:
        with suppress(OSError, ValueError):
            stored = _mapping(json.loads(file.read_text(encoding="utf-8")))
            found |= {name: str(value) for name, value in _mapping(stored.get("env")).items()}
    return found


def _mapping(stored: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", stored) if isinstance(stored, dict) else {}


def _extract_settings(arguments: list[str]) -> tuple[list[str], str | None]:
    """Return the arguments without `--settings`, and its last value. `--` ends the options."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    rest: list[str] = []
    theirs: str | None = None
    remaining = iter(arguments[:end])
    for argument in remaining:
        if argument == OPTION:
            theirs = next(remaining, None)
            if theirs is None:
                raise UsageError(f"{OPTION} needs a file or JSON as its value.")
        elif argument.startswith(f"{OPTION}="):
            theirs = argument.partition("=")[2]
        else:
            rest.append(argument)
    return rest + arguments[end:], theirs


def _read(argument: str) -> Mapping[str, object]:
    """Read as Claude Code does: JSON if it begins with a brace, else a file."""
    try:
        text = (
            argument
            if argument.lstrip().startswith("{")
            else Path(argument).read_text(encoding="utf-8")
        )
        decoded = read_json(text)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{OPTION} {argument}: neither a JSON object nor a file with one: {error}."
        ) from error
    if not isinstance(decoded, dict):
        raise UsageError(f"{OPTION} {argument}: not a JSON object.")
    return cast("dict[str, object]", decoded)


def _merge(ours: Mapping[str, object], theirs: Mapping[str, object]) -> Mapping[str, object]:
    """Merge objects recursively; theirs wins, and replaces lists."""
    return {**ours, **{key: _merge_value(ours.get(key), value) for key, value in theirs.items()}}


def _merge_value(ours: object, theirs: object) -> object:
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        return _merge(cast("Mapping[str, object]", ours), cast("Mapping[str, object]", theirs))
    return theirs
