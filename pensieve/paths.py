"""The folders and files of pensieve, as a value. Creates nothing and reads no environment."""

from dataclasses import dataclass
from pathlib import Path

CONFIG = "config.toml"


@dataclass(frozen=True, slots=True)
class Paths:
    state: Path  # lock, running server, what clients store
    models: Path  # weights
    logs: Path
    config_file: Path

    @property
    def prefixes(self) -> Path:
        """KV caches of earlier prompts: private, and excluded from backups."""
        return self.models.parent / "prefixes"

    @property
    def answers(self) -> Path:
        """Answers as they were generated; deleted together with the prefixes."""
        return self.prefixes / "answers"

    @property
    def lock_file(self) -> Path:
        """The running server holds it (flock) until it ends."""
        return self.state / "server.lock"

    @property
    def server_file(self) -> Path:
        """JSON about the running server: process id, address, model."""
        return self.state / "server.json"

    @property
    def keys_file(self) -> Path:
        """The keys of a team, hashed, with their limits."""
        return self.state / "keys.json"

    @property
    def key_usage_file(self) -> Path:
        """When each of those keys was used last, and its tokens of the day."""
        return self.state / "key_usage.json"

    @property
    def chat_history(self) -> Path:
        """Lines typed into `pensieve chat`."""
        return self.state / "chat_history"

    @property
    def batches(self) -> Path:
        """Message batches: a database, and the bodies of those that have not ended."""
        return self.state / "batches"

    @property
    def files(self) -> Path:
        """Files that clients uploaded to `/v1/files`, and a database of their metadata."""
        return self.state / "files"

    @property
    def responses(self) -> Path:
        """Responses of OpenAI's API, which clients continue: a database."""
        return self.state / "responses"

    @property
    def agents(self) -> Path:
        """A folder for each agent of `pensieve launch`: its configuration for this server."""
        return self.state / "agents"

    @property
    def bench(self) -> Path:
        """The home of the server that `pensieve bench` starts; deleted when it ends."""
        return self.models.parent / "bench"

    @property
    def server_log(self) -> Path:
        """Standard output and error of the background server."""
        return self.logs / "server.log"


def under_home(root: Path) -> Paths:
    """Put all files under one folder, as PENSIEVE_HOME asks."""
    return Paths(
        state=root / "state",
        models=root / "models",
        logs=root / "logs",
        config_file=root / CONFIG,
    )


def macos(home: Path) -> Paths:
    """Follow Apple's layout under `home/Library`."""
    library = home / "Library"
    return Paths(
        state=library / "Application Support" / "pensieve",
        models=library / "Caches" / "pensieve" / "models",
        logs=library / "Logs" / "pensieve",
        config_file=library / "Application Support" / "pensieve" / CONFIG,
    )


def xdg(
    home: Path,
    *,
    state: Path | None = None,  # $XDG_STATE_HOME
    cache: Path | None = None,  # $XDG_CACHE_HOME
    config: Path | None = None,  # $XDG_CONFIG_HOME
) -> Paths:
    """Follow the XDG base directory specification; None takes its default."""
    state_root = (state or home / ".local" / "state") / "pensieve"
    cache_root = (cache or home / ".cache") / "pensieve"
    return Paths(
        state=state_root,
        models=cache_root / "models",
        logs=state_root / "logs",
        config_file=(config or home / ".config") / "pensieve" / CONFIG,
    )
