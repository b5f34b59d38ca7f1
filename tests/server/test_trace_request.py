"""A streamed request without tools goes through a bounded number of files, its steps in order."""

import pytest

from benchmarks.front_end_trace import Trace, trace_request

# 53 and 233 on 2026-11-30, before small modules were merged.
MAX_FILES = 26
MAX_FUNCTIONS = 217
STEPS = [
    ("server/http/request_body.py", "read_body"),
    ("server/messages/pipeline.py", "RequestPipeline.parse"),
    ("server/messages/threads.py", "Threads.join"),
    ("server/messages/pipeline.py", "RequestPipeline.validate"),
    ("server/messages/pipeline.py", "RequestPipeline.render"),
    ("server/messages/completion.py", "Completer.complete"),
    ("server/http/event_stream.py", "EventWriter.write"),
]


@pytest.fixture(scope="module")
def trace() -> Trace:
    return trace_request()


def test_a_streamed_request_stays_within_the_limits_of_files_and_functions(trace: Trace) -> None:
    assert len(trace.functions) <= MAX_FILES
    assert sum(map(len, trace.functions.values())) <= MAX_FUNCTIONS


def test_the_steps_of_a_request_are_taken_in_order(trace: Trace) -> None:
    assert [call for call in trace.calls if call in STEPS] == STEPS


def test_a_file_that_is_entered_for_two_functions_in_turn_is_a_return() -> None:
    calls = [("a.py", "one"), ("b.py", "two"), ("a.py", "three"), ("a.py", "four")]
    assert dict(Trace(dict.fromkeys(calls)).returns) == {"a.py": 1}
