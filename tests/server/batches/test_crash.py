"""A batch worker whose process is killed again and again."""

import json
import subprocess
import sys
from pathlib import Path

from pensieve.server.batches.store import BatchStore
from tests.server.batch_child import REQUESTS

ROOT = Path(__file__).parents[3]


def work(folder: Path, answers: int | None) -> int:
    """Run a process until it has printed `answers` lines, then kill it; None: until it ends.

    Return the number of lines.
    """
    printed = 0
    command = [sys.executable, "-m", "tests.server.batch_child", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as child:
        assert child.stdout is not None
        for _ in child.stdout:
            printed += 1
            if printed == answers:
                child.kill()
                break
    return printed


def test_killed_worker_loses_no_result_and_repeats_none(tmp_path: Path) -> None:
    killed_after = [1, 7, 20]
    answered = sum(work(tmp_path, answers) for answers in killed_after)
    answered += work(tmp_path, None)
    store = BatchStore(tmp_path)
    (batch,) = store.list_batches()
    assert batch.outcomes == {"succeeded": REQUESTS}
    with store.results(batch) as content:
        lines = b"".join(content.chunks).splitlines()
    ids = [json.loads(line)["custom_id"] for line in lines]
    assert sorted(ids, key=int) == [str(number) for number in range(REQUESTS)]
    # Only requests in flight when a process died are answered again: at most two each time.
    assert answered <= REQUESTS + 2 * len(killed_after)
