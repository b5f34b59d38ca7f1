"""Trace one streamed request without tools through the whole application.

Prints the files of pensieve/ that the front end enters and the functions that it calls, in order of
first call, and the files that it enters again for another function. The engine and the tokenizer
are those of the tests. Writing the log is not counted. usage: python -m benchmarks.front_end_trace
"""

import gc
import logging
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from types import FrameType

import anyio

from tests.server.serving import app_of, stream_by_hand
from tests.support.fakes import ScriptedEngine, says

ROOT = f"{Path(__file__).parent.parent / 'pensieve'}/"


@dataclass(slots=True)
class Trace:
    """Files and functions in order of first call, while `note` is the profile function."""

    calls: dict[tuple[str, str], None] = field(default_factory=dict[tuple[str, str], None])

    def note(self, frame: FrameType, event: str, _argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(ROOT) and code.co_name != "<module>":
            # A comprehension or local function belongs to the function that contains it.
            function = code.co_qualname.partition(".<locals>")[0]
            self.calls[code.co_filename.removeprefix(ROOT), function] = None

    @property
    def functions(self) -> Mapping[str, Sequence[str]]:
        """Functions by file, both in order of first call."""
        found: dict[str, list[str]] = {}
        for file, function in self.calls:
            found.setdefault(file, []).append(function)
        return found

    @property
    def returns(self) -> Counter[str]:
        """Files that are left and entered again for another function, and how often."""
        visits = Counter(file for file, _ in groupby(file for file, _ in self.calls))
        return visits - Counter(visits.keys())


@contextmanager
def _profiled(trace: Trace) -> Iterator[None]:
    # What earlier work left would be closed in the trace: a generator's end counts as a call.
    gc.collect()
    gc.disable()
    logging.disable()
    threading.setprofile(trace.note)
    sys.setprofile(trace.note)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        logging.disable(logging.NOTSET)
        gc.enable()


async def _discard(_message: object) -> None:
    pass


def trace_request() -> Trace:
    """Trace the second request of an app: the first also probes the chat template."""
    app = app_of(ScriptedEngine([says("Hello.")]))
    anyio.run(stream_by_hand, app, _discard)
    trace = Trace()
    with _profiled(trace):
        # In an event loop of its own, so that its worker threads begin in the trace.
        anyio.run(stream_by_hand, app, _discard)
    return trace


def _report(trace: Trace) -> Iterator[str]:
    for file, functions in trace.functions.items():
        yield f"{file}: {', '.join(functions)}\n"
    count = sum(map(len, trace.functions.values()))
    yield f"\n{len(trace.functions)} files, {count} functions\n"
    returns = (f"{file} {times}" for file, times in trace.returns.most_common())
    yield f"entered again: {', '.join(returns)}\n"


if __name__ == "__main__":
    sys.stdout.writelines(_report(trace_request()))
