"""`pensieve stop`: ends the background or foreground server of this home."""

from pensieve.cli.lifecycle.server_report import interruption_told
from pensieve.cli.ui import output
from pensieve.daemon import stop as daemon_stop
from pensieve.settings import resolve as settings_module


def stop(*, force: bool = False) -> int:
    """Stop the server; open answers may finish first.

    For example:
      pensieve stop
      pensieve stop --force                  # at once

    Parameters
    ----------
    force
        Do not wait: open answers are cut off.
    """
    with interruption_told("The server ends by itself once open answers have."):
        ended = daemon_stop.stop(settings_module.resolve_paths(), is_forced=force)
    output.data(f"pensieve has stopped (pid {ended.pid})." if ended else "pensieve is not running.")
    if ended and ended.service:
        when = "at once" if force else "at your next login"
        output.note(f"Homebrew starts it again {when}. To end that:\n  brew services stop pensieve")
    return 0
