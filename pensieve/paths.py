"""Where pensieve keeps its files. A value; it makes no folder and reads no environment."""

from dataclasses import dataclass
from pathlib import Path

CONFIG = "config.toml"


@dataclass(frozen=True, slots=True)
class Paths:
    """Three roots: `state` (lock, running server), `models` (weights), `logs`; and the configuration file."""

    state: Path
    models: Path
    logs: Path
    config_file: Path

    @property
    def prefixes(self) -> Path:
        """KV caches of prompts gone by: private, and worth no backup."""
        return self.models.parent / "prefixes"

    @property
    def answers(self) -> Path:
        """Answers as they were generated; they go with the prefixes."""
        return self.prefixes / "answers"

    @property
    def lock_file(self) -> Path:
        """Held (flock) by the running server for as long as it lives."""
        return self.state / "server.lock"

    @property
    def server_file(self) -> Path:
        """JSON about the running server: process id, address, model."""
        return self.state / "server.json"

    @property
    def chat_history(self) -> Path:
        """What was typed in conversations."""
        return self.state / "chat_history"

    @property
    def batches(self) -> Path:
        """Message batches, a folder each: what was asked and what came of it."""
        return self.state / "batches"

    @property
    def files(self) -> Path:
        """What clients uploaded to `/v1/files`."""
        return self.state / "files"

    @property
    def server_log(self) -> Path:
        """What the background server writes to its standard output and error."""
        return self.logs / "server.log"


def under_home(root: Path) -> Paths:
    """All of pensieve's files under one folder, as PENSIEVE_HOME asks."""
    return Paths(
        state=root / "state",
        models=root / "models",
        logs=root / "logs",
        config_file=root / CONFIG,
    )


def macos(home: Path) -> Paths:
    """Apple's places under `home/Library`."""
    library = home / "Library"
    return Paths(
        state=library / "Application Support" / "pensieve",
        models=library / "Caches" / "pensieve" / "models",
        logs=library / "Logs" / "pensieve",
        config_file=library / "Application Support" / "pensieve" / CONFIG,
    )


def xdg(
    home: Path, *, state: Path | None = None, cache: Path | None = None, config: Path | None = None
) -> Paths:
    """The XDG base directories; each is $XDG_STATE_HOME, $XDG_CACHE_HOME or $XDG_CONFIG_HOME where set."""
    state_root = (state or home / ".local" / "state") / "pensieve"
    cache_root = (cache or home / ".cache") / "pensieve"
    return Paths(
        state=state_root,
        models=cache_root / "models",
        logs=state_root / "logs",
        config_file=(config or home / ".config") / "pensieve" / CONFIG,
    )
