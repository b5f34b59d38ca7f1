"""packaging/REPOSITORY names the published repository; all documents name the same one."""

import re

import pytest

from tests.packaging.project import REPOSITORY, ROOT, read

FILES = [
    "README.md",
    "CHANGELOG.md",
    "Formula/pensieve.rb",
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").glob("*.md"))),
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / ".github").rglob("*.yml"))),
]
# The unpublished tap of `make brew`.
LOCAL = "local/pensieve"
OWN = re.compile(
    r"github\.com/([\w.-]+/(?:homebrew-)?pensieve)\b"
    r"|\bbrew(?: [a-z]+)+(?: --\S+)* ([\w.-]+/[\w-]+?)(?:/pensieve)?\b"
)


@pytest.mark.parametrize("file", FILES)
def test_documents_name_only_this_repository(file: str) -> None:
    names = {one or other for one, other in OWN.findall(read(file))}
    assert names <= {REPOSITORY, LOCAL}


def test_formula_and_changelog_name_the_repository() -> None:
    for file in ("Formula/pensieve.rb", "CHANGELOG.md"):
        assert f"github.com/{REPOSITORY}" in read(file)


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
def test_the_pattern_finds_other_repositories(text: str) -> None:
    assert OWN.search(text)
