"""The settings that `pensieve claude` gives to Claude Code on its command line, and how the user's own join them. Pure but for
reading the file that a user's own `--settings` names.

Claude Code takes the last `--settings` it is given, so there must be one. Where both say something, the user's word counts.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

from pensieve.errors import UsageError
from pensieve.untrusted_json import read_json

OPTION = "--settings"
# disableAutoMode: that mode asks the hosted service whether each command is safe. deny: tools whose descriptions take half of
# the first request, for work that a local model does in the conversation itself. skipWebFetchPreflight: a look at claude.ai.
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
    """Claude Code's arguments with the settings in front, into which those of the user's own arguments are merged.

    environment: what also stands in the settings, since the `env` of a settings file of the user's counts more than the
    environment itself. effort: to begin with. Raises `UsageError` for settings that cannot be read.
    """
    rest, theirs = _taken_out(list(arguments))
    ours = {"env": dict(environment), **OURS, **({"effortLevel": effort} if effort else {})}
    merged = _merged(ours, _read(theirs)) if theirs is not None else ours
    return [OPTION, json.dumps(merged, separators=(",", ":")), *rest]


def settings_files(environ: Mapping[str, str]) -> list[Path]:
    """Return where Claude Code looks for the user's and the project's settings, the last to count last."""
    own = environ.get("CLAUDE_CONFIG_DIR") or Path(environ.get("HOME") or Path.home(), ".claude")
    here = Path(".claude")
    return [Path(own, "settings.json"), here / "settings.json", here / "settings.local.json"]


def variables_in_files(files: Sequence[Path]) -> dict[str, str]:
    """Return the `env` of all of them; one that cannot be read sets nothing."""
    found: dict[str, str] = {}
    for file in files:
        with suppress(OSError, ValueError):
            stored = _mapping(json.loads(file.read_text(encoding="utf-8")))
            found |= {name: str(value) for name, value in _mapping(stored.get("env")).items()}
    return found


def _mapping(stored: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", stored) if isinstance(stored, dict) else {}


def _taken_out(arguments: list[str]) -> tuple[list[str], str | None]:
    """The arguments without `--settings`, and what was given with it; the last one counts. Behind `--` are no options."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    rest: list[str] = []
    theirs: str | None = None
    words = iter(arguments[:end])
    for word in words:
        if word == OPTION:
            theirs = next(words, None)
            if theirs is None:
                raise UsageError(f"{OPTION} needs a file or JSON behind it.")
        elif word.startswith(f"{OPTION}="):
            theirs = word.partition("=")[2]
        else:
            rest.append(word)
    return rest + arguments[end:], theirs


def _read(given: str) -> Mapping[str, object]:
    """As Claude Code reads it: JSON where it looks like it, else a file."""
    try:
        text = given if given.lstrip().startswith("{") else Path(given).read_text(encoding="utf-8")
        decoded = read_json(text)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{OPTION} {given}: neither a JSON object nor a file with one: {error}."
        ) from error
    if not isinstance(decoded, dict):
        raise UsageError(f"{OPTION} {given}: not a JSON object.")
    return cast("dict[str, object]", decoded)


def _merged(ours: Mapping[str, object], theirs: Mapping[str, object]) -> Mapping[str, object]:
    """Theirs over ours, object by object; a list of theirs stands for ours."""
    return {**ours, **{key: _over(ours.get(key), value) for key, value in theirs.items()}}


def _over(ours: object, theirs: object) -> object:
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        return _merged(cast("Mapping[str, object]", ours), cast("Mapping[str, object]", theirs))
    return theirs
