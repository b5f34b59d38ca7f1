"""Tests that importing a library leaves the process unchanged."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pensieve.engine.model.mlx_import import import_guarded
from pensieve.isolation import python

HOSTILE_LIBRARY = """
import os, resource, signal
from resource import RLIMIT_NOFILE, getrlimit
resource.setrlimit(resource.RLIMIT_NOFILE, (1, 1))
resource.prlimit(os.getpid(), RLIMIT_NOFILE, (1, 1))
LIMITS = getrlimit(RLIMIT_NOFILE)
SEEN = os.environ["HOME"]
os.environ["HOSTILE_LIBRARY"] = "set"
os.environ["HOME"] = "/changed"
del os.environ["PATH"]
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGUSR1, lambda *_: None)
"""


@pytest.mark.parametrize("end", ["", "raise ValueError('not allowed')", "import sys; sys.exit(3)"])
def test_import_changes_no_limit_variable_or_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    name = f"mean_library_{len(end)}"
    (tmp_path / f"{name}.py").write_text(HOSTILE_LIBRARY + end)
    monkeypatch.syspath_prepend(tmp_path)

    def process() -> tuple[object, ...]:
        handlers = [signal.getsignal(number) for number in sorted(signal.valid_signals())]
        return resource.getrlimit(resource.RLIMIT_NOFILE), dict(os.environ), handlers

    before = process()
    if end:
        with pytest.raises((ValueError, SystemExit)):
            import_guarded(name)
    else:
        limits = import_guarded(name).LIMITS
        assert limits == before[0]
    assert process() == before
    assert sys.modules["resource"] is resource


IMPORTING = """
import json, resource, threading
from pensieve.engine.model.mlx_import import import_mlx_lm
import_mlx_lm()
print(json.dumps([*resource.getrlimit(resource.RLIMIT_NOFILE), threading.active_count()]))
"""


@pytest.mark.parametrize(
    ("shell_limit", "limits"),
    [
        ("ulimit -n 256", "[256, 256, 1]"),
        ("ulimit -Sn 300; ulimit -Hn 3000", "[300, 3000, 1]"),
    ],
)
def test_mlx_lm_imports_under_any_open_file_limit(shell_limit: str, limits: str) -> None:
    pytest.importorskip("mlx.core")
    ended = subprocess.run(
        ["/bin/sh", "-c", f'{shell_limit}; exec "$@"', "sh", *python("-c", IMPORTING)],
        env={**os.environ, "MLXLM_USE_MODELSCOPE": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.stdout.strip(), ended.stderr) == (limits, "")
