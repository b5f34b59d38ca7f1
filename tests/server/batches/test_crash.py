"""A queue whose process is killed, again and again, in the middle of its work."""

import json
import subprocess
import sys
from pathlib import Path

from pensieve.server.batches.store import BatchStore
from tests.server.batch_child import REQUESTS

ROOT = Path(__file__).parents[3]


def work(folder: Path, answers: int | None) -> int:
    """Let a process work until it has told of so many answers, then kill it; None: until it ends. How many it told."""
    told = 0
    command = [sys.executable, "-m", "tests.server.batch_child", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as child:
        assert child.stdout is not None
        for _ in child.stdout:
            told += 1
            if told == answers:
                child.kill()
                break
    return told


def test_a_killed_queue_loses_nothing_and_does_nothing_twice(tmp_path: Path) -> None:
    killed_after = [1, 7, 20]
    answered = sum(work(tmp_path, answers) for answers in killed_after)
    answered += work(tmp_path, None)
    (batch,) = BatchStore(tmp_path).all()
    assert batch.outcomes == {"succeeded": REQUESTS}
    lines = BatchStore(tmp_path).results(batch).read_text().splitlines()
    ids = [json.loads(line)["custom_id"] for line in lines]
    assert sorted(ids, key=int) == [str(number) for number in range(REQUESTS)]
    # Only what was on its way when a process died is answered again: at most two requests each time.
    assert answered <= REQUESTS + 2 * len(killed_after)
