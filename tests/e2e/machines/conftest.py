"""A tiny model for tests of several machines and engines: they start many of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.e2e.installation import Installation
from tests.support import tiny_models
from tests.support.ports import free_port

HEADS = {"num_attention_heads": 8, "num_key_value_heads": 4}  # which two machines can share


@dataclass(frozen=True)
class TinyInstallation(Installation):
    """An installation that serves a tiny model in a folder."""

    folder: Path

    def start(self, *options: str, check: bool = True) -> CompletedProcess[str]:
        model = ("--model", str(self.folder), "--device", "cpu")
        return self.pensieve("start", *model, *options, check=check)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.build("llama", tmp_path_factory.mktemp("tiny") / "model", **HEADS)


def installations(base: Path, folder: Path, names: Sequence[str]) -> list[TinyInstallation]:
    made = [TinyInstallation(base / name, free_port(), folder) for name in names]
    for each in made:
        each.home.mkdir(parents=True)
    return made
