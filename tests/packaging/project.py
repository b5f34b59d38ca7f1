"""The project's files and the scripts of packaging/, for the packaging tests."""

import importlib.util
import sys
import tomllib
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]
REPOSITORY = (ROOT / "packaging" / "REPOSITORY").read_text(encoding="utf-8").strip()


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@cache
def pyproject() -> dict[str, Any]:
    return tomllib.loads(read("pyproject.toml"))


@cache
def script(name: str) -> ModuleType:
    """Import a file of packaging/. The folder is no package: one of its name is installed."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "packaging" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
