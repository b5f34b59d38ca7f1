"""What documents for developers name is there."""

import re

import pytest

from tests.packaging.project import ROOT

PATH = re.compile(r"`((?:[\w.-]+/)*[\w.-]+\.(?:py|md)|(?:[\w-]+/)+)`")


@pytest.mark.parametrize("name", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_every_path_in_a_document_exists(name: str) -> None:
    named = PATH.findall((ROOT / name).read_text(encoding="utf-8"))
    assert named
    places = (ROOT, ROOT / "pensieve")
    assert [path for path in named if not any((place / path).exists() for place in places)] == []
