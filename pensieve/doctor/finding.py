"""One result of a check, as `pensieve doctor` shows it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

# red: it does not work or is not safe. warning: it works but will surprise.
Level = Literal["ok", "warning", "red"]


@dataclass(frozen=True, slots=True)
class Finding:
    topic: str  # short, as "base url"
    level: Level
    text: str  # what was found and what it means
    fix: str = ""  # commands, one per line; empty if none is needed

    def as_json(self) -> dict[str, str]:
        return {"topic": self.topic, "level": self.level, "text": self.text, "fix": self.fix}


def ok(topic: str, text: str) -> Finding:
    return Finding(topic, "ok", text)


def warning(topic: str, text: str, fix: str = "") -> Finding:
    return Finding(topic, "warning", text, fix)


def red(topic: str, text: str, fix: str = "") -> Finding:
    return Finding(topic, "red", text, fix)


def is_healthy(findings: Iterable[Finding]) -> bool:
    """Whether no finding is red."""
    return all(finding.level != "red" for finding in findings)
