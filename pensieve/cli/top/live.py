"""Redraws the screen while a thread asks the server, until a key ends it."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from rich.console import ConsoleDimensions
from rich.live import Live

from pensieve.cli.client.activity import activity_of, history_of
from pensieve.cli.client.activity_reader import Body
from pensieve.cli.top.drawing import Outage, TopScreen, TopState
from pensieve.cli.ui.keys import END, ReadKey
from pensieve.cli.ui.rich_console import terminal_console
from pensieve.errors import PensieveError

LEAVING_KEYS = frozenset({"q", "Q", END})
# How soon a key or a new size of the terminal is noticed.
TICK_S = 0.1
HISTORY_INTERVAL_S = 5.0
FOOTER = "q quits"

# Returns the activity and, if asked for, the history. Raises `PensieveError`.
Read = Callable[[bool], list[Body]]
Clock = Callable[[], float]


def next_state(state: TopState, read: Read, now: float, *, with_history: bool) -> TopState:
    """Ask the server once. An outage keeps the figures from before it and its own beginning."""
    try:
        activity, *history = read(with_history)
    except PensieveError as error:
        since = state.outage.since if state.outage else now
        return replace(state, outage=Outage(error.message, error.hint or "", since))
    return TopState(activity_of(activity), history_of(history[0]) if history else state.history)


class Poller:
    """Owns the thread that asks, and the latest state. `state` may be read from any thread.

    A server that does not answer keeps the thread waiting, and no key. failure: an error that ended
    the thread.
    """

    def __init__(
        self, read: Read, state: TopState, interval_s: float, clock: Clock = time.monotonic
    ) -> None:
        self.state = state
        self.failure: Exception | None = None
        self._read = read
        self._interval_s = interval_s
        self._clock = clock
        self._history_at = clock()
        self._is_stopped = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="pensieve-top", daemon=True).start()

    def stop(self) -> None:
        """Have the thread end after its current question; does not wait."""
        self._is_stopped.set()

    def _run(self) -> None:
        try:
            while not self._is_stopped.wait(self._interval_s):
                self.poll()
        except Exception as error:  # noqa: BLE001 -- raised by `watch`, on the main thread
            self.failure = error

    def poll(self) -> None:
        now = self._clock()
        # After an outage at once: a new server has another history.
        is_due = now - self._history_at >= HISTORY_INTERVAL_S or self.state.outage is not None
        self.state = next_state(self.state, self._read, now, with_history=is_due)
        if is_due:
            self._history_at = now


class LiveScreen:
    """Owns the terminal's second screen while entered; the first one comes back unchanged."""

    def __init__(
        self, write: Callable[[str], None], size: Callable[[], tuple[int, int]], encoding: str
    ) -> None:
        self._console = terminal_console(write, encoding)
        self._size = size
        self._set_size()
        self._live = Live(
            console=self._console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> "LiveScreen":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def draw(self, screen: TopScreen) -> None:
        self._set_size()
        self._live.update(screen, refresh=True)

    def _set_size(self) -> None:
        self._console.size = ConsoleDimensions(*self._size())


def watch(
    poller: Poller,
    screen: LiveScreen,
    read_key: ReadKey,
    size: Callable[[], tuple[int, int]],
    clock: Clock = time.monotonic,
) -> None:
    """Draw whenever something has changed, until a key or the end of the terminal ends it.

    Raises the poller's failure.
    """
    drawn: object = None
    while True:
        if poller.failure:
            raise poller.failure
        state, now, (_, lines) = poller.state, clock(), size()
        shown = (state, size(), int(now) if state.outage else 0)
        if shown != drawn:
            screen.draw(TopScreen(state, lines, now, FOOTER))
            drawn = shown
        if read_key(TICK_S) in LEAVING_KEYS:
            return
