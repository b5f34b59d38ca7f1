"""The contents and metadata of the wheel."""

import email
import sys
import zipfile
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest

import pensieve
from tests.packaging.project import ROOT, pyproject
from tests.support.programs import run_program


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    run_program(command, cwd=ROOT)
    [built] = folder.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        yield archive


KINDS = {".py", ".html", ".css", ".js"}


def dist_info(wheel: zipfile.ZipFile, name: str) -> str:
    [path] = [entry for entry in wheel.namelist() if entry.endswith(f".dist-info/{name}")]
    return wheel.read(path).decode()


def metadata(wheel: zipfile.ZipFile) -> Message:
    return email.message_from_string(dist_info(wheel, "METADATA"))


def test_wheel_has_only_the_package_and_its_licence(wheel: zipfile.ZipFile) -> None:
    tops = {entry.partition("/")[0] for entry in wheel.namelist()}
    version = pyproject()["project"]["version"]
    assert tops == {"pensieve", f"pensieve_llm-{version}.dist-info"}
    own = {entry for entry in wheel.namelist() if entry.startswith("pensieve/")}
    files = [file for file in (ROOT / "pensieve").rglob("*") if file.suffix in KINDS]
    source = {str(file.relative_to(ROOT)) for file in files if file.is_file()}
    assert own == source
    assert dist_info(wheel, "licenses/LICENSE") == (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_wheel_is_platform_independent(wheel: zipfile.ZipFile) -> None:
    assert Path(wheel.filename).name.endswith("-py3-none-any.whl")
    assert metadata(wheel)["Requires-Python"] == pyproject()["project"]["requires-python"]


def test_wheel_has_the_projects_version(wheel: zipfile.ZipFile) -> None:
    assert metadata(wheel)["Version"] == pensieve.__version__ == pyproject()["project"]["version"]


def test_the_only_program_is_pensieve(wheel: zipfile.ZipFile) -> None:
    points = dist_info(wheel, "entry_points.txt").split("\n\n")
    assert [point.strip() for point in points] == [
        "[console_scripts]\npensieve = pensieve.__main__:main"
    ]


def test_wheel_requires_the_projects_dependencies(wheel: zipfile.ZipFile) -> None:
    needed = metadata(wheel).get_all("Requires-Dist")
    unconditional = [text for text in needed if "extra ==" not in text]
    assert len(unconditional) == len(pyproject()["project"]["dependencies"])
    assert metadata(wheel)["License-Expression"] == pyproject()["project"]["license"]
