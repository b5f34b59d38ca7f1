"""The lock files: every requirement of pyproject.toml, by hash, in the tested versions."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packaging.project import pyproject, read

LOCKS = ["requirements.lock", "requirements-dev.lock", "requirements-macos.lock"]
# The markers of a Mac with Apple silicon and the formula's Python.
MAC = {
    "sys_platform": "darwin",
    "platform_system": "Darwin",
    "platform_machine": "arm64",
    "os_name": "posix",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "python_version": "3.14",
    "python_full_version": "3.14.0",
    "extra": "",
}


@dataclass(frozen=True)
class Pin:
    requirement: Requirement
    hashes: tuple[str, ...]

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str:
        [specifier] = self.requirement.specifier
        assert specifier.operator == "=="
        return specifier.version


@cache
def pins(lock: str) -> tuple[Pin, ...]:
    entries = read(f"packaging/{lock}").replace("\\\n", " ").splitlines()
    return tuple(_pin(entry) for entry in entries)


def _pin(entry: str) -> Pin:
    requirement, *hashes = re.split(r"\s+--hash=", entry.strip())
    return Pin(Requirement(requirement), tuple(hashes))


def mac_versions(lock: str) -> dict[str, str]:
    return {pin.name: pin.version for pin in pins(lock) if applies(pin.requirement)}


def applies(requirement: Requirement, extra: str = "") -> bool:
    return requirement.marker is None or requirement.marker.evaluate(MAC | {"extra": extra})


def requirements() -> Iterator[Requirement]:
    project = pyproject()
    texts = [*project["project"]["dependencies"], *project["dependency-groups"]["formula"]]
    return filter(applies, map(Requirement, texts))


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_has_one_version_and_hashes(lock: str) -> None:
    assert len(pins(lock)) > 40
    for pin in pins(lock):
        assert pin.version
        assert pin.hashes
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in pin.hashes), pin.name
    names = [pin.name for pin in pins(lock) if applies(pin.requirement)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("lock", LOCKS)
def test_no_lock_has_a_url(lock: str) -> None:
    assert not re.search(r"://| @ |--index|--find-links", read(f"packaging/{lock}"))


def test_locked_versions_are_within_the_projects_ranges() -> None:
    locked = mac_versions("requirements-macos.lock")
    for requirement in requirements():
        version = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"run `make lock`: {requirement}"


def test_the_lock_has_exactly_the_needed_packages() -> None:
    """Uses the metadata of the packages installed here."""
    locked = mac_versions("requirements-macos.lock")
    needed: set[str] = set()
    queue = [(canonicalize_name(r.name), frozenset(r.extras)) for r in requirements()]
    while queue:
        name, extras = queue.pop()
        needed.add(name)
        queue += [need for need in _needs(name, extras) if need[0] not in needed or need[1]]
    assert needed == locked.keys()


def _needs(name: str, extras: frozenset[str]) -> list[tuple[str, frozenset[str]]]:
    if name == "mlx":  # its Linux build is another package with other requirements
        return [("mlx-metal", frozenset())]
    try:
        texts = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []
    parsed = map(Requirement, texts)
    return [
        (canonicalize_name(requirement.name), frozenset(requirement.extras))
        for requirement in parsed
        if any(applies(requirement, extra) for extra in {"", *extras})
    ]


def test_homebrew_gets_the_tested_versions() -> None:
    tested = mac_versions("requirements.lock")
    locked = mac_versions("requirements-macos.lock")
    only_for_homebrew = {"pip", "mlx-metal"}
    assert {name for name in locked if locked[name] != tested.get(name)} <= only_for_homebrew
    assert locked["mlx-metal"] == locked["mlx"]


def test_the_installed_versions_are_the_locked_ones() -> None:
    locked = {
        pin.name: pin.version
        for pin in pins("requirements-dev.lock")
        if pin.requirement.marker is None
    }
    installed = {name: metadata.version(name) for name in locked}
    assert installed == locked, "run `make .venv/dev.stamp`"
