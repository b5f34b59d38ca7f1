"""A browser for all tests of the page, and servers that they start and stop."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from pensieve.paths import under_home
from pensieve.server.app import AppParts
from tests.page.browser import Browser, running_browser
from tests.server.serving import KEY, SETTINGS, app_of, listening
from tests.support.fakes import ScriptedEngine
from tests.support.ports import free_port


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    with running_browser() as browser:
        yield browser


@dataclass(frozen=True)
class Place:
    """Where a server runs, also after a restart."""

    home: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @contextmanager
    def serve(
        self, engine: ScriptedEngine, parts: AppParts | None = None, **settings: object
    ) -> Generator[BlockingPortal]:
        """Run a server; yield its event loop."""
        paths = under_home(self.home)
        app = app_of(engine, parts=parts, settings=replace(SETTINGS, paths=paths, **settings))
        with (
            start_blocking_portal("asyncio") as portal,
            portal.wrap_async_context_manager(listening(app, port=self.port)),
        ):
            yield portal

    def open_unlocked(self, browser: Browser, **options: object) -> None:
        browser.do("open", url=self.url, **options)
        browser.do("type", text=KEY)
        browser.do("press", key="Enter")
        browser.wait_for("#state", "ready")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, free_port())
