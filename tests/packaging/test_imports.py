"""Third-party imports and declared dependencies are the same."""

import ast
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packaging.project import ROOT, pyproject

# Starlette imports it to read forms.
INDIRECT = {"python-multipart"}


@cache
def declared() -> set[str]:
    texts = pyproject()["project"]["dependencies"]
    return {canonicalize_name(Requirement(text).name) for text in texts}


@cache
def imported() -> dict[str, str]:
    """Return third-party top-level modules, each with a file that imports it."""
    return {
        name: str(file.relative_to(ROOT))
        for file in sorted((ROOT / "pensieve").rglob("*.py"))
        for name in top_levels(file.read_text(encoding="utf-8"))
        if name not in sys.stdlib_module_names and name != "pensieve"
    }


def top_levels(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


@cache
def installed() -> Mapping[str, list[str]]:
    """Return the packages that provide each module; reading them takes a third of a second."""
    return metadata.packages_distributions()


def distributions(module: str) -> set[str]:
    """Return the packages that provide a module; for mlx they include its Linux builds."""
    return {canonicalize_name(name) for name in installed()[module]}


def test_every_third_party_import_is_declared() -> None:
    modules = imported()
    assert len(modules) > 15
    undeclared = {
        name: file for name, file in modules.items() if not distributions(name) & declared()
    }
    assert not undeclared


def test_every_dependency_is_imported() -> None:
    provided = set().union(*map(distributions, imported()))
    assert declared() - provided == INDIRECT
