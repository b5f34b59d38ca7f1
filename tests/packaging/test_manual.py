"""docs/commands.md and the man page are made from `--help`."""

import shutil

import pytest

from pensieve.cli.app import build_app
from tests.packaging.project import ROOT, script
from tests.support.programs import run_program

manual = script("manual")


@pytest.mark.parametrize("name", ["commands.md", "pensieve.1"])
def test_the_pages_equal_the_help(name: str) -> None:
    assert manual.files().keys() == {ROOT / "docs" / "commands.md", ROOT / "docs" / "pensieve.1"}
    file = ROOT / "docs" / name
    assert file.read_text(encoding="utf-8") == manual.files()[file], "run `make docs`"


def test_every_command_has_a_section() -> None:
    made = manual.pages()
    commands = {name for name in build_app() if not name.startswith("-")}
    assert commands == {page.words[0] for page in made if len(page.words) == 1}
    text = manual.markdown(made)
    assert all(f"\n## {page.name}\n" in text for page in made)
    assert all(page.description and page.usage.startswith("pensieve") for page in made)


def test_indented_lines_are_examples_and_no_line_is_lost() -> None:
    text = "One.\n\nFor example:\n  a b\n  c\n\nTwo\nlines."
    assert list(manual.passages(text)) == [
        (False, "One."),
        (False, "For example:"),
        (True, "  a b\n  c"),
        (False, "Two\nlines."),
    ]


def test_the_man_page_escapes_requests() -> None:
    page = manual.Page((), usage="p", description="Say.\n\n.so /etc/passwd\n'br\nback\\slash")
    lines = manual.roff([page]).splitlines()
    assert "\\&.so /etc/passwd" in lines
    assert "\\&'br" in lines
    assert "back\\eslash" in lines


@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff here")
def test_groff_accepts_the_man_page_without_warnings() -> None:
    page = ROOT / "docs" / "pensieve.1"
    command = ["groff", "-man", "-Tutf8", "-ww", "-z", str(page)]
    assert run_program(command).stderr == ""
