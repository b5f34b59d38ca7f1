"""Decoding processes: what they are given, what ends them, and what is kept of them."""

import os
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from pensieve.errors import EngineBusyError
from pensieve.media.decoder import ENTRY_BYTES, Decoder
from pensieve.media.outcome import Refusal
from pensieve.settings.resolve import variables_set
from tests.support.pdfs import forms_in_forms, long_page, pdf_of

# Prints as pages: its open descriptors besides the three standard ones, and its variables.
INSPECT = """
import json, os
def is_open(number):
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
found = [*(str(number) for number in range(3, 256) if is_open(number)), *sorted(os.environ)]
print(json.dumps({"pages": found}))
"""
NAMES_ITSELF = """
import os, signal, sys
open(sys.argv[1], "w").write(str(os.getpid()))
signal.pause()
"""
COUNTS = """
import json, sys
open(sys.argv[1], "a").write("x")
print(json.dumps({"pages": [sys.stdin.read()]}))
"""
LIMITED = """
from pensieve.media.confinement import Limits
from pensieve.media.program import main
main(Limits(memory_bytes=200 << 20, cpu_s=1))
"""


async def test_a_pdf_is_read_by_another_process() -> None:
    assert await Decoder().pdf_pages(pdf_of("one", "two")) == ("one", "two")
    assert await Decoder().pdf_pages(b"no PDF") is Refusal.INVALID


async def test_a_process_has_no_descriptors_and_no_secrets_of_the_server() -> None:
    with (
        variables_set({"PENSIEVE_API_KEY": "secret", "HOME": "/tmp"}),
        Path(os.devnull).open() as file,
    ):
        os.set_inheritable(file.fileno(), True)
        found = await Decoder(("-c", INSPECT)).pdf_pages(b"")
    assert set(found) <= {"HOME", "LD_LIBRARY_PATH", "LC_CTYPE"}
    assert "HOME" in found


@pytest.mark.parametrize(
    "code",
    [
        "import os; os.abort()",
        "raise SystemExit(3)",
        "print('no JSON')",
        "print('[1]')",
        "print('{}')",
        """print('{"refusal": "unheard of"}')""",
        """print('{"refusal": ["encrypted"]}')""",
        r"""print('{"pages": ["\\ud800"]}')""",
        "print('[' * 100000)",
        """print('{"pages": ["text"]}'); raise SystemExit(1)""",
    ],
)
async def test_a_process_that_fails_or_answers_nonsense_refuses_its_file(code: str) -> None:
    assert await Decoder(("-c", code)).pdf_pages(b"x" * 1_000_000) is Refusal.TOO_COSTLY


async def test_a_process_that_writes_too_much_is_refused() -> None:
    code = "import sys; [sys.stdout.write('x' * 2**20) for _ in range(65)]"
    assert await Decoder(("-c", code)).pdf_pages(b"") is Refusal.TOO_COSTLY


async def test_a_process_that_hangs_is_killed_and_the_next_file_is_read(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    decoder = Decoder(("-c", NAMES_ITSELF, str(pid_file)), timeout_s=1)
    for _ in range(2):
        with pytest.raises(EngineBusyError):
            await decoder.pdf_pages(b"")
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid_file.read_text()), 0)
        pid_file.unlink()


async def test_a_cancelled_request_ends_its_process(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    decoder = Decoder(("-c", NAMES_ITSELF, str(pid_file)))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(decoder.pdf_pages, b"")
        with anyio.fail_after(30):
            while not pid_file.exists() or not pid_file.read_text():
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


async def test_a_program_that_does_not_start_is_a_busy_server() -> None:
    decoder = Decoder()
    decoder._command = ["/nowhere/python"]
    with pytest.raises(EngineBusyError, match="No process"):
        await decoder.pdf_pages(b"")


async def test_a_file_is_read_once_also_by_requests_at_the_same_time(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    decoder = Decoder(("-c", COUNTS, str(starts)))
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(decoder.pdf_pages, b"a")
    assert await decoder.pdf_pages(b"a") == ("a",)
    assert starts.read_text() == "x"
    assert await decoder.pdf_pages(b"b") == ("b",)
    assert starts.read_text() == "xx"


async def test_a_file_whose_process_failed_is_tried_again(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    decoder = Decoder(("-c", f"{COUNTS}raise SystemExit(1)", str(starts)))
    for _ in range(2):
        assert await decoder.pdf_pages(b"a") is Refusal.TOO_COSTLY
    assert starts.read_text() == "xx"


async def test_the_least_recently_used_texts_are_dropped_first(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    decoder = Decoder(("-c", COUNTS, str(starts)), max_cached_bytes=2 * (ENTRY_BYTES + 4))
    for content in (b"a", b"b", b"a", b"c", b"a"):
        assert await decoder.pdf_pages(content) == (content.decode(),)
    assert starts.read_text() == "xxx"
    await decoder.pdf_pages(b"b")
    assert starts.read_text() == "xxxx"


@pytest.mark.parametrize("bomb", [forms_in_forms, long_page])
async def test_a_bomb_ends_its_process_alone(bomb: Callable[[], bytes]) -> None:
    decoder = Decoder(("-c", LIMITED))
    content = bomb()
    assert len(content) < 200_000
    assert await decoder.pdf_pages(content) is Refusal.TOO_COSTLY
    assert await decoder.pdf_pages(pdf_of("alive")) == ("alive",)
