"""The command line: names the commands, and turns whatever happens into a message and an exit code.

The one place where an error becomes words on the terminal. A traceback is shown for PENSIEVE_DEBUG=1 alone.
"""

import traceback
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter

from pensieve import __version__
from pensieve.cli import output
from pensieve.cli.cache import cache
from pensieve.cli.chat.command import chat
from pensieve.cli.env import env
from pensieve.cli.help import HelpLayout
from pensieve.cli.plan import plan
from pensieve.cli.start import start
from pensieve.cli.status import status
from pensieve.cli.stop import stop
from pensieve.errors import PensieveError
from pensieve.settings import is_debug_asked

USAGE = 2
INTERRUPTED = 130
BROKEN_PIPE = 141

HELP = """\
A local model on your own Mac that speaks the Anthropic API.

For example:
  pensieve start                         # first time: fetches the model
  pensieve chat "Why is the sky blue?"
  eval "$(pensieve env)" && claude       # Claude Code on the local model
  pensieve status
  pensieve stop
"""


def build_app() -> App:
    """The commands. Whatever they raise comes out of the call."""
    app = App(
        name="pensieve",
        help=HELP,
        version=f"pensieve {__version__}",
        help_format="plaintext",
        group_parameters="Options",
        help_formatter=HelpLayout(),
        default_parameter=Parameter(negative="", show_default=False, show_choices=False),
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
        result_action="return_value",
    )
    for command in (start, stop, status, env, chat, plan, cache):
        app.command(command)
    return app


def run(words: Sequence[str]) -> int:
    """Do what the command line says; the exit code. Raises nothing but SystemExit."""
    output.prepare()
    try:
        code = build_app()(_without_help_command(words))
        output.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        output.forget_reader()
        return BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 -- the last boundary: nobody above can say it better
        return _tell(error)
    return code if isinstance(code, int) else 0


def _without_help_command(words: Sequence[str]) -> list[str]:
    """`help X` means `X --help`."""
    return [*words[1:], "--help"] if words[:1] == ["help"] else list(words)


def _tell(error: Exception) -> int:
    if is_debug_asked():
        output.note("".join(traceback.format_exception(error)).rstrip())
    match error:
        case PensieveError():
            output.failure(error.message, error.hint)
            return error.exit_code
        case CycloptsError():
            output.failure(str(error), "See how it is used:\n  pensieve --help")
            return USAGE
        case _:
            output.failure(
                f"pensieve has a fault of its own: {type(error).__name__}: {error}",
                "With PENSIEVE_DEBUG=1 it shows where. Please report that.",
            )
            return 1
