"""The formula's lock: what pyproject.toml asks for and all that this needs, each by its hashes, in the tested versions."""

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
# A Mac with Apple silicon, with the Python that the formula depends on.
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
    """One package of a lock."""

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


def on_the_mac(lock: str) -> dict[str, str]:
    return {pin.name: pin.version for pin in pins(lock) if applies(pin.requirement)}


def applies(requirement: Requirement, extra: str = "") -> bool:
    return requirement.marker is None or requirement.marker.evaluate(MAC | {"extra": extra})


def asked() -> Iterator[Requirement]:
    project = pyproject()
    texts = [*project["project"]["dependencies"], *project["dependency-groups"]["formula"]]
    return filter(applies, map(Requirement, texts))


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_has_one_version_and_its_hashes(lock: str) -> None:
    assert len(pins(lock)) > 40
    for pin in pins(lock):
        assert pin.version
        assert pin.hashes
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in pin.hashes), pin.name
    names = [pin.name for pin in pins(lock) if applies(pin.requirement)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("lock", LOCKS)
def test_no_lock_names_an_address(lock: str) -> None:
    assert not re.search(r"://| @ |--index|--find-links", read(f"packaging/{lock}"))


def test_the_lock_is_within_the_ranges_that_the_project_asks_for() -> None:
    locked = on_the_mac("requirements-macos.lock")
    for requirement in asked():
        version = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"run `make lock`: {requirement}"


def test_the_lock_holds_all_that_its_packages_need_and_nothing_else() -> None:
    """By what the packages that are installed here say of themselves."""
    locked = on_the_mac("requirements-macos.lock")
    needed: set[str] = set()
    waiting = [(canonicalize_name(r.name), frozenset(r.extras)) for r in asked()]
    while waiting:
        name, extras = waiting.pop()
        needed.add(name)
        waiting += [found for found in _needs(name, extras) if found[0] not in needed or found[1]]
    assert needed == locked.keys()


def _needs(name: str, extras: frozenset[str]) -> list[tuple[str, frozenset[str]]]:
    if name == "mlx":  # its build for Linux is another package, and says so of itself
        return [("mlx-metal", frozenset())]
    try:
        texts = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []
    found = map(Requirement, texts)
    return [
        (canonicalize_name(requirement.name), frozenset(requirement.extras))
        for requirement in found
        if any(applies(requirement, extra) for extra in {"", *extras})
    ]


def test_homebrew_gets_the_versions_that_the_tests_run_with() -> None:
    tested = on_the_mac("requirements.lock")
    locked = on_the_mac("requirements-macos.lock")
    only_for_homebrew = {"pip", "mlx-metal"}
    assert {name for name in locked if locked[name] != tested.get(name)} <= only_for_homebrew
    assert locked["mlx-metal"] == locked["mlx"]


def test_the_tests_run_with_what_the_lock_of_this_machine_says() -> None:
    here = {
        pin.name: pin.version
        for pin in pins("requirements-dev.lock")
        if pin.requirement.marker is None
    }
    installed = {name: metadata.version(name) for name in here}
    assert installed == here, "run `make .venv/dev.stamp`"
