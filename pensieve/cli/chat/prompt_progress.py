"""Shows how far the prompt is while the first token is awaited."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from pensieve.cli.chat.view import View
from pensieve.cli.client.activity import activity_of
from pensieve.cli.client.activity_reader import ACTIVITY, read_activity
from pensieve.cli.client.connection import Server
from pensieve.cli.lifecycle.request_progress import waiting_text
from pensieve.errors import PensieveError

INTERVAL_S = 0.5

# Returns what the request with this id waits for, empty if unknown. Raises `PensieveError`.
ReadText = Callable[[str], str]


class PromptProgress:
    """Owns a thread that asks the server and draws on the view, until `stop`.

    Only one thread draws at a time: this one from `start` until `stop` returns.
    """

    def __init__(
        self, view: View, read_text: ReadText, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._view = view
        self._read_text = read_text
        self._clock = clock
        self._started_at = clock()
        self._drawing = threading.Lock()
        self._is_stopped = threading.Event()

    @property
    def is_stopped(self) -> bool:
        return self._is_stopped.is_set()

    def start(self, request_id: str) -> None:
        if self._view.waits_until != "never":
            arguments = (request_id,)
            threading.Thread(target=self._run, args=arguments, daemon=True).start()

    def stop(self) -> None:
        """Draw no more. The thread may still wait for the server; it ends after that."""
        with self._drawing:
            self._is_stopped.set()

    def _run(self, request_id: str) -> None:
        with suppress(PensieveError, OSError):  # if it cannot be drawn, the answer says so
            self._draw("")
            while not self._is_stopped.wait(INTERVAL_S):
                self._draw(self._text(request_id))

    def _text(self, request_id: str) -> str:
        try:
            return self._read_text(request_id) if request_id else ""
        except PensieveError:  # an older server, or one that is gone: the answer's error says so
            return ""

    def _draw(self, text: str) -> None:
        with self._drawing:
            if not self._is_stopped.is_set():
                self._view.show_waiting(self._clock() - self._started_at, text)


def prompt_progress_of(server: Server, view: View) -> PromptProgress:
    def read_text(request_id: str) -> str:
        (body,) = read_activity(server, ACTIVITY)
        return waiting_text(activity_of(body), request_id)

    return PromptProgress(view, read_text)
