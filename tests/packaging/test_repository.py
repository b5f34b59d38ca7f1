"""Where pensieve is published stands in one file; every other place says the same."""

import re

import pytest

from tests.packaging.project import REPOSITORY, ROOT, read

PLACES = [
    "README.md",
    "CHANGELOG.md",
    "Formula/pensieve.rb",
    *(str(file.relative_to(ROOT)) for file in sorted((ROOT / "docs").glob("*.md"))),
    *(str(file.relative_to(ROOT)) for file in sorted((ROOT / ".github").rglob("*.yml"))),
]
# The tap that `make brew` makes, which is published nowhere.
LOCAL = "local/pensieve"
OWN = re.compile(
    r"github\.com/([\w.-]+/(?:homebrew-)?pensieve)\b"
    r"|\bbrew(?: [a-z]+)+(?: --\S+)* ([\w.-]+/[\w-]+?)(?:/pensieve)?\b"
)


@pytest.mark.parametrize("place", PLACES)
def test_a_place_that_names_the_repository_names_the_one_in_its_file(place: str) -> None:
    named = {one or other for one, other in OWN.findall(read(place))}
    assert named <= {REPOSITORY, LOCAL}


def test_the_formula_and_the_changelog_name_it() -> None:
    for place in ("Formula/pensieve.rb", "CHANGELOG.md"):
        assert f"github.com/{REPOSITORY}" in read(place)


@pytest.mark.parametrize(
    "text",
    [
        "https://github.com/other/pensieve/archive",
        "brew install other/tap/pensieve",
        "brew trust --formula other/tap/pensieve",
        "brew tap other/pensieve https://",
        "brew services start other/tap/pensieve",
    ],
)
def test_another_repository_would_be_noticed(text: str) -> None:
    assert OWN.search(text)
