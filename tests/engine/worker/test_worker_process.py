"""The worker's process: inherited sockets and the exit code after an abort."""

import os
import socket
import subprocess
import sys

import pytest

from pensieve.engine.worker.worker import FrontEnd

ABORTS = {
    "main thread": "os.abort()",
    "another thread": "it = threading.Thread(target=os.abort); it.start(); it.join()",
}


@pytest.mark.parametrize("where", ABORTS)
def test_abort_on_any_thread_exits_with_its_message_and_code_6(where: str) -> None:
    program = (
        "import os, threading;"
        "from pensieve.engine.worker.worker import end_quietly_on_abort;"
        f"end_quietly_on_abort(); os.write(2, b'[METAL] failed'); {ABORTS[where]}"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (6, b"[METAL] failed")


def test_socket_of_the_worker_is_not_inherited_by_its_children() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        os.set_inheritable(theirs.fileno(), True)
        FrontEnd(theirs)
        assert not os.get_inheritable(theirs.fileno())
