"""CHANGELOG.md follows Keep a Changelog 1.1 and has a link for every heading."""

import re
from itertools import pairwise

from tests.packaging.project import REPOSITORY, pyproject, read

KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
RELEASE = re.compile(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d{2}-\d{2})$", re.MULTILINE)


def test_headings_are_unreleased_and_then_releases_newest_first() -> None:
    headings = re.findall(r"^## .*$", read("CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == "## [Unreleased]"
    releases = [match.groups() for heading in headings[1:] if (match := RELEASE.match(heading))]
    assert len(releases) == len(headings) - 1
    ordered = [(tuple(map(int, version.split("."))), day) for version, day in releases]
    assert all(newer[0] > older[0] and newer[1] >= older[1] for newer, older in pairwise(ordered))


def test_entries_have_the_defined_kinds() -> None:
    kinds = re.findall(r"^### (.*)$", read("CHANGELOG.md"), re.MULTILINE)
    assert kinds
    assert set(kinds) <= KINDS


def test_every_heading_has_a_link() -> None:
    text = read("CHANGELOG.md")
    headings = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)
    links = dict(re.findall(r"^\[(.+?)\]: (.+)$", text, re.MULTILINE))
    assert links.keys() == set(headings)
    assert all(link.startswith(f"https://github.com/{REPOSITORY}/") for link in links.values())


def test_the_newest_release_is_the_project_version() -> None:
    released = RELEASE.findall(read("CHANGELOG.md"))
    assert not released or released[0][0] == pyproject()["project"]["version"]
