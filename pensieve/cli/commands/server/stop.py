"""`pensieve stop`: stops the background or foreground server of this home."""

from pensieve.cli.lifecycle.server_report import interruption_note
from pensieve.cli.ui import output
from pensieve.daemon import stop as daemon_stop
from pensieve.settings import resolve as settings_module


def stop(*, force: bool = False) -> int:
    """Stop the server after open answers have finished.

    For example:
      pensieve stop
      pensieve stop --force                  # at once

    Parameters
    ----------
    force
        Do not wait for open answers; abort them.
    """
    with interruption_note("The server stops after its open answers."):
        stopped = daemon_stop.stop(settings_module.resolve_paths(), is_forced=force)
    output.data(
        f"pensieve has stopped (pid {stopped.pid})." if stopped else "pensieve is not running."
    )
    if stopped and stopped.service:
        when = "at once" if force else "at your next login"
        output.note(
            f"Homebrew starts it again {when}. To prevent that:\n  brew services stop pensieve"
        )
    return 0
