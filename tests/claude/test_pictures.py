"""The real Claude Code reads pictures, by a server whose model sees, and alone is scripted."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import anyio
import pytest

from pensieve.engine.generation import Generation
from pensieve.engine.pictures import PromptPicture
from tests.claude.claude_code import ClaudeCode
from tests.claude.recording import running_server
from tests.clients.serving import ToolCallingEngine, serving
from tests.support.pdfs import pdf_of
from tests.support.pictures import PAD, SIGHT, START, picture, shown

DONE = "I have seen it."


@dataclass
class SeeingEngine(ToolCallingEngine):
    generations: list[Generation] = field(default_factory=list[Generation])

    def answer_to(self, generation: Generation) -> str:
        self.generations.append(generation)
        texts = tuple(token for token in generation.prompt_tokens if 0 <= token < START)
        return super().answer_to(replace(generation, prompt_tokens=texts, pictures=()))


def last_generation(claude: ClaudeCode, folder: Path, name: str, content: bytes) -> Generation:
    """Have Claude Code read a file; return what its server asked the engine for after that."""
    file = claude.work / name
    file.write_bytes(content)
    engine = SeeingEngine(DONE, inputs={"Read": {"file_path": str(file)}})
    with serving(engine, folder / "server", context_tokens=200_000, sight=SIGHT) as url:
        server = SimpleNamespace(server_port=urlsplit(url).port)
        with running_server(folder / "pensieve", server) as installation:
            output = claude.run(installation, "-p", "What is it?", "--allowedTools", "Read")
    assert output.text == DONE
    assert output.tools_used == ["Read"]
    assert PAD not in engine.generations[-1].prompt_tokens
    return engine.generations[-1]


def colour_of(one: PromptPicture) -> tuple[int, int, int]:
    """Return the colour in the middle of a picture, as the engine gets it."""
    assert one.pixels is not None
    pixels = anyio.run(one.pixels)
    assert len(pixels) == one.rows * one.columns * 3 * SIGHT.unit**2
    middle = (one.rows * one.columns * SIGHT.unit**2 + one.columns * SIGHT.unit) // 2 * 3
    return pixels[middle], pixels[middle + 1], pixels[middle + 2]


@pytest.mark.parametrize(("name", "kind"), [("red.png", "PNG"), ("red.jpg", "JPEG")])
def test_claude_code_shows_a_picture_that_it_reads(
    claude: ClaudeCode, tmp_path: Path, name: str, kind: str
) -> None:
    generation = last_generation(claude, tmp_path, name, picture((320, 192), kind=kind))
    (one,) = generation.pictures
    assert (one.rows, one.columns) == (6, 10)
    assert colour_of(one) == pytest.approx((255, 0, 0), abs=3)
    assert "{0}" in shown(generation).rpartition('<tool_result name="Read">')[2]


def test_claude_code_shows_the_pages_of_a_pdf(claude: ClaudeCode, tmp_path: Path) -> None:
    generation = last_generation(claude, tmp_path, "a.pdf", pdf_of("The code word is owl.", ""))
    assert len(generation.pictures) == 2
    assert colour_of(generation.pictures[1]) == (255, 255, 255)
    result = shown(generation).rpartition('<tool_result name="Read">')[2]
    assert '<page number="1">\nThe code word is owl.\n{0}\n</page>' in result
