"""`pensieve top`: watches what the server does, or prints it once.

Its drawing is slow to import, and help does not need it.
"""

import json
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from pensieve.cli.client.activity_reader import (
    ACTIVITY,
    HISTORY,
    Body,
    find_server,
    read_activity,
)
from pensieve.cli.lifecycle.start_options import Allowed
from pensieve.cli.ui import output
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import Settings

if TYPE_CHECKING:
    from pensieve.cli.top.drawing import TopState

MIN_INTERVAL_S, MAX_INTERVAL_S = 0.2, 3600.0
PIPE_COLUMNS = 100
# A closed terminal sends SIGHUP, Ctrl-\\ SIGQUIT.
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def _is_interval(seconds: float) -> bool:
    return MIN_INTERVAL_S <= seconds <= MAX_INTERVAL_S


INTERVAL = Allowed("seconds from 0.2 to 3600, such as 2", _is_interval)


def top(
    *,
    interval: Annotated[float, Parameter(metavar="SECONDS", validator=INTERVAL)] = 1.0,
    json_: bool = False,
) -> int:
    """Watch what the server does: open requests, speed, memory.

    For example:
      pensieve top
      pensieve top | head -5                 # a pipe gets it once
      pensieve top --json

    Shows how far each prompt is and how long it still takes, the tokens per second
    of each answer, memory and disk against their limits, the last hour, and the
    last requests. q quits.

    Parameters
    ----------
    interval
        Ask the server at this interval; the default is 1.
    json_
        Print one JSON object instead, once.
    """
    settings = settings_module.resolve()
    activity, history = bodies = _read(settings, with_history=True)
    if json_:
        output.data(json.dumps({**history, **activity}, indent=2))
        return 0
    state = _state_of(bodies)
    if not output.can_draw():
        output.data(_as_text(state))
        return 0
    return _watch(lambda with_history: _read(settings, with_history=with_history), state, interval)


def _read(settings: Settings, *, with_history: bool) -> list[Body]:
    """Find the server each time: it may have been started again elsewhere."""
    paths = [ACTIVITY, HISTORY] if with_history else [ACTIVITY]
    return read_activity(find_server(settings), *paths)


def _state_of(bodies: list[Body]) -> "TopState":
    from pensieve.cli.client.activity import activity_of, history_of
    from pensieve.cli.top.drawing import TopState

    return TopState(activity_of(bodies[0]), history_of(bodies[1]))


def _as_text(state: "TopState") -> str:
    from pensieve.cli.top.drawing import TopScreen
    from pensieve.cli.ui.rich_console import plain_text

    columns = output.size()[0] if output.stdout_is_tty() else PIPE_COLUMNS
    return plain_text(TopScreen(state), columns, output.encoding())


def _watch(read: Callable[[bool], list[Body]], state: "TopState", interval_s: float) -> int:
    from pensieve.cli.top.live import LiveScreen, Poller, watch
    from pensieve.cli.ui.keys import single_keys

    poller = Poller(read, state, interval_s)
    screen = LiveScreen(output.stream, output.size, output.encoding())
    with _signals_exit(), single_keys() as read_key, screen:
        poller.start()
        with suppress(KeyboardInterrupt):  # as usual a way to leave as q
            watch(poller, screen, read_key, output.size)
        poller.stop()
    return 0


@contextmanager
def _signals_exit() -> Generator[None]:
    """Make signals unwind the `with` blocks, so that the terminal is restored."""

    def unwind(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    previous = {each: signal.signal(each, unwind) for each in ENDING_SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
