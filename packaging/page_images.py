"""Records docs/images/page*.png: the page at `/` in Chromium while a real server answers.

usage: make screenshots
The server has a home of its own, which is removed afterwards. The clients' prompts are made up.
"""

import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.e2e.installation import KEY, Installation
from tests.page.browser import Browser, running_browser
from tests.support.ports import free_port

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
TURNS = 5
TOPICS = ("parsers", "queues", "caches", "sockets", "threads", "files", "clocks", "locks")
NOTES = " ".join(f"Note {number} is about {topic}." for number in range(24) for topic in TOPICS)


PROCESSED = "document.querySelector('[data-phase=prompt] .bar .processed')"
CLAUDE_CODE = "claude-cli/2"
TOOL = {"name": "look", "description": "Look into a file.", "input_schema": {"type": "object"}}


@dataclass(frozen=True)
class Picture:
    name: str
    width: int
    height: int
    scheme: str


PICTURES = (
    Picture("page", 1440, 900, "light"),
    Picture("page-narrow", 320, 900, "dark"),
)


@contextmanager
def serving(home: Path) -> Iterator[Installation]:
    installation = Installation(home, free_port())
    installation.start()
    try:
        yield installation
    finally:
        installation.pensieve("stop")


def ask(server: Installation, messages: list[dict[str, str]], max_tokens: int, agent: str) -> str:
    """Return the answer. Claude Code also sends its session, and tools in every turn."""
    is_claude = agent == CLAUDE_CODE
    response = httpx.post(
        f"{server.base_url}/v1/messages",
        headers={"x-api-key": KEY, "user-agent": agent}
        | ({"x-claude-code-session-id": "1"} if is_claude else {}),
        json={"model": "any", "max_tokens": max_tokens, "messages": messages}
        | ({"tools": [TOOL], "tool_choice": {"type": "none"}} if is_claude else {}),
        timeout=300,
    )
    content = response.raise_for_status().json()["content"]
    return "".join(block["text"] for block in content) or "Done."


def converse(server: Installation) -> None:
    """Have a conversation that grows by a turn each time."""
    messages = [{"role": "user", "content": NOTES[:1000]}]
    for turn in range(TURNS):
        answer = ask(server, messages, 40, CLAUDE_CODE)
        messages += [
            {"role": "assistant", "content": answer},
            {"role": "user", "content": f"Go on with part {turn}."},
        ]


def picture(browser: Browser, server: Installation, shown: Picture) -> None:
    size = {"width": shown.width, "height": shown.height}
    browser.do("open", url=f"{server.base_url}/", scheme=shown.scheme, **size)
    browser.do("type", text=KEY)
    browser.do("press", key="Enter")
    with ThreadPoolExecutor() as threads:
        running = start_two(server, threads, shown.name)
        browser.wait(f"parseFloat({PROCESSED}?.style.width) > 20")
        path = IMAGES / f"{shown.name}.png"
        browser.do("picture", path=str(path), whole=False)
        for each in running:
            each.result()
    print(path.relative_to(ROOT))


def start_two(server: Installation, threads: ThreadPoolExecutor, name: str) -> list[Future[str]]:
    """Start an answer, and a prompt that takes some seconds. name: makes the prompt a new one."""
    question = [{"role": "user", "content": "Tell me about rivers."}]
    first = threads.submit(ask, server, question, 120, "codex")
    long = [{"role": "user", "content": f"{name}: {NOTES[:4000]}"}]
    return [first, threads.submit(ask, server, long, 8, CLAUDE_CODE)]


def main() -> int:
    with (
        tempfile.TemporaryDirectory(prefix="pensieve-") as folder,
        serving(Path(folder) / "home") as server,
        running_browser() as browser,
    ):
        converse(server)
        for shown in PICTURES:
            picture(browser, server, shown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
