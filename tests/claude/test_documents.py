"""The real Claude Code reads a PDF, by a server whose model alone is scripted."""

from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from tests.claude.claude_code import ClaudeCode
from tests.claude.recording import running_server
from tests.clients.serving import ToolCallingEngine, serving
from tests.support.fakes import ByteTokenizer
from tests.support.pdfs import forms_in_forms, locked_pdf, pdf_of

TASK = "What does the paper say?"
DONE = "It says something."


def run(claude: ClaudeCode, folder: Path, content: bytes) -> tuple[list[str], list[str]]:
    """Have the file read; return the prompts after that, and the tools that were used."""
    paper = claude.work / "paper.pdf"
    paper.write_bytes(content)
    engine = ToolCallingEngine(DONE, inputs={"Read": {"file_path": str(paper)}})
    with serving(engine, folder / "server", context_tokens=200_000) as url:
        server = SimpleNamespace(server_port=urlsplit(url).port)
        with running_server(folder / "pensieve", server) as installation:
            output = claude.run(installation, "-p", TASK, "--allowedTools", "Read")
    assert output.text == DONE
    return [ByteTokenizer().decode(tokens) for tokens in engine.earlier], output.tools_used


def test_claude_code_reads_the_text_of_a_pdf(claude: ClaudeCode, tmp_path: Path) -> None:
    prompts, tools = run(claude, tmp_path, pdf_of("The code word is swordfish.", "More."))
    assert tools == ["Read"]
    pages = '<page number="1">\nThe code word is swordfish.\n</page>\n<page number="2">\nMore.\n'
    assert f"<document>\n{pages}</page>\n</document>\n</tool_result>" in prompts[-1]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (locked_pdf(), "The PDF specified is password protected."),
        (pdf_of("", ""), "Could not process PDF: none of its 2 pages has text."),
        (forms_in_forms(), "Could not process PDF: reading it takes too much time or memory."),
    ],
    ids=["locked", "scan", "bomb"],
)
def test_claude_code_tells_the_model_why_a_pdf_is_not_read_and_goes_on(
    claude: ClaudeCode, tmp_path: Path, content: bytes, reason: str
) -> None:
    prompts, tools = run(claude, tmp_path, content)
    assert tools == ["Read"]
    result = prompts[-1].rpartition('<tool_result name="Read">')[2]
    assert "<document>" not in result
    assert reason in result
