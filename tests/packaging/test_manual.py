"""docs/commands.md and the man page say what `--help` says."""

import shutil
import subprocess

import pytest

from pensieve.cli.app import build_app
from tests.packaging.project import ROOT, script

manual = script("manual")


@pytest.mark.parametrize("name", ["commands.md", "pensieve.1"])
def test_the_pages_are_as_the_help_is(name: str) -> None:
    assert manual.files().keys() == {ROOT / "docs" / "commands.md", ROOT / "docs" / "pensieve.1"}
    file = ROOT / "docs" / name
    assert file.read_text(encoding="utf-8") == manual.files()[file], "run `make docs`"


def test_every_command_has_its_section() -> None:
    made = manual.pages()
    commands = {name for name in build_app() if not name.startswith("-")}
    assert commands == {page.words[0] for page in made if len(page.words) == 1}
    text = manual.markdown(made)
    assert all(f"\n## {page.name}\n" in text for page in made)
    assert all(page.description and page.usage.startswith("pensieve") for page in made)


def test_what_is_indented_is_an_example_and_nothing_is_lost() -> None:
    text = "One.\n\nFor example:\n  a b\n  c\n\nTwo\nlines."
    assert list(manual.passages(text)) == [
        (False, "One."),
        (False, "For example:"),
        (True, "  a b\n  c"),
        (False, "Two\nlines."),
    ]


def test_the_man_page_takes_no_text_for_a_request() -> None:
    page = manual.Page((), usage="p", description="Say.\n\n.so /etc/passwd\n'br\nback\\slash")
    lines = manual.roff([page]).splitlines()
    assert "\\&.so /etc/passwd" in lines
    assert "\\&'br" in lines
    assert "back\\eslash" in lines


@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff here")
def test_groff_finds_nothing_wrong_with_the_man_page() -> None:
    page = ROOT / "docs" / "pensieve.1"
    command = ["groff", "-man", "-Tutf8", "-ww", "-z", str(page)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stderr == ""
