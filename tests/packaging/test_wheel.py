"""What is in the wheel: the program and its licence, nothing else; what it says of itself."""

import email
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest

import pensieve
from tests.packaging.project import ROOT, pyproject


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    [built] = folder.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        yield archive


def metadata(wheel: zipfile.ZipFile, name: str) -> str:
    [path] = [entry for entry in wheel.namelist() if entry.endswith(f".dist-info/{name}")]
    return wheel.read(path).decode()


def said(wheel: zipfile.ZipFile) -> Message:
    return email.message_from_string(metadata(wheel, "METADATA"))


def test_it_holds_the_package_and_its_licence_alone(wheel: zipfile.ZipFile) -> None:
    tops = {entry.partition("/")[0] for entry in wheel.namelist()}
    version = pyproject()["project"]["version"]
    assert tops == {"pensieve", f"pensieve_llm-{version}.dist-info"}
    own = {entry for entry in wheel.namelist() if entry.startswith("pensieve/")}
    source = {
        str(file.relative_to(ROOT)) for file in (ROOT / "pensieve").rglob("*.py") if file.is_file()
    }
    assert own == source
    assert metadata(wheel, "licenses/LICENSE") == (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_it_runs_on_any_machine_that_has_the_python(wheel: zipfile.ZipFile) -> None:
    assert Path(wheel.filename).name.endswith("-py3-none-any.whl")
    assert said(wheel)["Requires-Python"] == pyproject()["project"]["requires-python"]


def test_it_has_one_version(wheel: zipfile.ZipFile) -> None:
    assert said(wheel)["Version"] == pensieve.__version__ == pyproject()["project"]["version"]


def test_its_one_program_is_pensieve(wheel: zipfile.ZipFile) -> None:
    points = metadata(wheel, "entry_points.txt").split("\n\n")
    assert [point.strip() for point in points] == [
        "[console_scripts]\npensieve = pensieve.__main__:main"
    ]


def test_it_needs_what_the_project_asks_for(wheel: zipfile.ZipFile) -> None:
    needed = said(wheel).get_all("Requires-Dist")
    unconditional = [text for text in needed if "extra ==" not in text]
    assert len(unconditional) == len(pyproject()["project"]["dependencies"])
    assert said(wheel)["License-Expression"] == pyproject()["project"]["license"]
