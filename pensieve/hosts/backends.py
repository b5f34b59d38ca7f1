"""Which back ends of `mx.distributed` this machine has; a process of its own imports MLX for it."""

import json
import subprocess

from pensieve.isolation import python

_PROGRAM = ("-m", "pensieve.engine.ranks.rendezvous")
TIMEOUT_S = 60.0


def own_backends() -> tuple[str, ...]:
    """Return the back ends of this machine's MLX, none if MLX does not load."""
    try:
        done = subprocess.run(  # noqa: S603 -- our own module
            python(*_PROGRAM), capture_output=True, timeout=TIMEOUT_S, check=True
        )
        return tuple(json.loads(done.stdout))
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()
