"""What one look found: the words of `pensieve doctor`."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "red"]


@dataclass(frozen=True, slots=True)
class Finding:
    """topic: one word or two. text: what was found and what it means. fix: commands, one a line; empty where none is needed.

    red: it does not work, or is not safe. warning: it works, and something about it will surprise.
    """

    topic: str
    level: Level
    text: str
    fix: str = ""

    def as_json(self) -> dict[str, str]:
        """Its fields."""
        return {"topic": self.topic, "level": self.level, "text": self.text, "fix": self.fix}


def ok(topic: str, text: str) -> Finding:
    """As it should be."""
    return Finding(topic, "ok", text)


def warning(topic: str, text: str, fix: str = "") -> Finding:
    """It works, and something about it will surprise."""
    return Finding(topic, "warning", text, fix)


def red(topic: str, text: str, fix: str = "") -> Finding:
    """It does not work, or is not safe."""
    return Finding(topic, "red", text, fix)


def is_healthy(findings: Iterable[Finding]) -> bool:
    """Nothing is red."""
    return all(finding.level != "red" for finding in findings)
