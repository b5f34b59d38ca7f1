"""The committed images show the pages' commands, and nothing of the machine they come from.
Recording them is `make screenshots`.
"""

import re
from html import unescape

import pytest

from tests.packaging.project import ROOT, read, script

screenshots = script("screenshots")
page_images = script("page_images")
NAMES = [recording.name for recording in screenshots.RECORDINGS]
PICTURES = [picture.name for picture in page_images.PICTURES]
MACHINE_PATH = re.compile(r"/(?:home|root|Users|tmp|private|var|opt|work|usr)\b")
# Fonts, images and scripts that a browser would load; the namespace is only a name.
LOADED = re.compile(r"@import|@font-face|<image|<script|<foreignObject|href=|url\((?!#)")
PAGES = ["README.md", *(f"docs/{file.name}" for file in sorted((ROOT / "docs").glob("*.md")))]


def image(name: str) -> str:
    return read(f"docs/images/{name}.svg")


def shown(svg: str) -> str:
    """Return an image's text; blanks between texts of different colours are missing."""
    text = re.sub(r"<[^>]*>", "", re.sub(r"<style>.*?</style>", "", svg, flags=re.DOTALL))
    return unescape(text).replace("\xa0", " ")


def test_folder_holds_exactly_the_recordings() -> None:
    files = {file.name for file in (ROOT / "docs" / "images").iterdir()}
    svgs, pngs = {f"{name}.svg" for name in NAMES}, {f"{name}.png" for name in PICTURES}
    assert files == svgs | pngs


@pytest.mark.parametrize("name", PICTURES)
def test_picture_of_the_page_is_shown_and_small(name: str) -> None:
    assert any(f"images/{name}.png" in read(page) for page in PAGES)
    assert (ROOT / "docs" / "images" / f"{name}.png").stat().st_size < 200_000


@pytest.mark.parametrize("recording", screenshots.RECORDINGS, ids=NAMES)
def test_image_shows_every_command_of_its_recording(recording: "screenshots.Recording") -> None:
    text = shown(image(recording.name))
    assert all(f"${command}" in text for command in recording.commands)


@pytest.mark.parametrize("recording", screenshots.RECORDINGS, ids=NAMES)
def test_page_with_an_image_has_its_commands_as_text(recording: "screenshots.Recording") -> None:
    pages = [page for page in PAGES if f"images/{recording.name}.svg" in read(page)]
    assert pages
    for page in pages:
        assert all(command in read(page) for command in recording.commands), page


@pytest.mark.parametrize("name", NAMES)
def test_image_has_no_machine_path_and_loads_nothing(name: str) -> None:
    assert MACHINE_PATH.findall(shown(image(name))) == []
    assert LOADED.findall(image(name)) == []


def test_ansi_text_becomes_an_image_that_loads_nothing() -> None:
    recording = screenshots.Recording("sample", 40, ("pensieve status",))
    svg = screenshots.image_of("\x1b[32m$\x1b[0m \x1b[1mpensieve status\x1b[0m\n", recording)
    assert "$pensieve status" in shown(svg)
    assert "font-weight: bold" in svg
    assert LOADED.findall(svg) == []


@pytest.mark.parametrize("text", ["log /tmp/x/server.log", "ann@host", "by ann."])
def test_text_with_a_path_or_name_of_the_machine_is_refused(text: str) -> None:
    with pytest.raises(screenshots.PrivateTextError):
        screenshots.refuse_private(text, ["/tmp/x", "ann"])


def test_name_within_another_word_is_accepted() -> None:
    screenshots.refuse_private("an annual plan", ["/tmp/x", "ann"])


def test_script_shows_and_runs_every_command() -> None:
    lines = screenshots._script(["pensieve start", 'pensieve chat "Hi?"'], "done").splitlines()
    assert [line for line in lines if line.startswith("pensieve")] == [
        "pensieve start",
        'pensieve chat "Hi?"',
    ]
    assert lines.index("done") == len(lines) - 2
