"""`pensieve chat`: parses its options and runs one question or a conversation.

The values of the API are slow to import, and help does not need them.
"""

from collections.abc import Callable, Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from pensieve.cli.chat.view import BufferedView, DrawnView, NoView, PlainView, View
from pensieve.cli.lifecycle.start_options import Allowed, allowed_by_setting, whole_number
from pensieve.cli.ui import output
from pensieve.errors import PromptTooLongError, PromptUnprocessableError, UsageError
from pensieve.paths import Paths
from pensieve.settings import resolve as settings_module

if TYPE_CHECKING:
    from pensieve.api.messages.content_blocks import ImageBlock
    from pensieve.cli.chat.conversation import ChatOptions
    from pensieve.cli.chat.receive import Answer
    from pensieve.cli.chat.server_connection import ServerConnection
    from pensieve.cli.client.messages import Turn

# Fits a long thought and a long piece of code.
DEFAULT_MAX_TOKENS = 4096
# More than any model's context, to which the server limits the answer anyway.
MAX_TOKENS = 10**9


Print = Annotated[
    bool,
    Parameter(
        name=("--print", "-p"),
        help="Print one answer as plain text even on a terminal, as in a pipe.",
    ),
]
System = Annotated[
    str,
    Parameter(
        name=("--system", "-s"),
        metavar="TEXT",
        help="Set instructions for the whole conversation.",
    ),
]
Model = Annotated[
    str | None,
    Parameter(
        name=("--model", "-m"),
        metavar="NAME",
        help="Require this model; fail if the server has another one.",
    ),
]
MaxTokens = Annotated[
    int,
    Parameter(
        converter=whole_number,
        validator=Allowed(
            f"a whole number from 1 to {MAX_TOKENS}, such as 1000",
            range(1, MAX_TOKENS + 1).__contains__,
        ),
        metavar="N",
        help=f"Limit the answer to this many tokens; the default is {DEFAULT_MAX_TOKENS}.",
    ),
]
Temperature = Annotated[
    float | None,
    Parameter(
        validator=allowed_by_setting("temperature"),
        metavar="T",
        help="Sample at this temperature, from 0 (always the likeliest token) to 2. The"
        " default comes from the server's settings or the model.",
    ),
]
Image = Annotated[
    tuple[Path, ...],
    Parameter(
        name="--image",
        metavar="FILE",
        negative=(),
        help="Show the model this picture with the question; repeat it for more. In a chat,"
        " drag files into the line.",
    ),
]
Stats = Annotated[
    bool,
    Parameter(help="Show tokens and seconds on standard error even without a terminal."),
]
HideThinking = Annotated[bool, Parameter(help="Hide what the model thinks before it answers.")]
Json = Annotated[
    bool, Parameter(help="Print one JSON object: text, model, stop_reason, usage, timings.")
]


def chat(  # noqa: PLR0913 -- each is a flag
    *question: str,
    print: Print = False,  # noqa: A002 -- the flag's name
    system: System = "",
    model: Model = None,
    image: Image = (),
    max_tokens: MaxTokens = DEFAULT_MAX_TOKENS,
    temperature: Temperature = None,
    raw: bool = False,
    no_stream: bool = False,
    hide_thinking: HideThinking = False,
    json: Json = False,
    stats: Stats = False,
    no_history: bool = False,
) -> int:
    """Ask the model a question, or chat with it.

    For example:
      pensieve chat "Why is the sky blue?"
      git diff | pensieve chat "Write a commit message for this."
      pensieve chat --image error.png "What is wrong here?"
      pensieve chat                          # chat; /help, Ctrl-D quits

    Parameters
    ----------
    question
        Ask this; piped input is put before it.
    raw
        Show the markdown source.
    no_stream
        Show the answer only when it is complete.
    no_history
        Do not save typed lines.
    """
    from pensieve.cli.chat.conversation import ChatOptions
    from pensieve.cli.chat.images import read_image
    from pensieve.cli.chat.server_connection import ConnectOptions, ServerConnection

    images = tuple(map(read_image, image))
    settings = settings_module.resolve()
    is_plain = print or json
    view = _views(is_raw=raw or print, is_buffered=no_stream, hides_thinking=hide_thinking or print)
    shows_timing = stats or (output.stderr_is_tty() and not is_plain)
    options = ChatOptions(max_tokens, temperature, hide_thinking, shows_timing, view)
    is_interactive = output.stdin_is_tty() and output.stderr_is_tty()
    connection = ServerConnection(ConnectOptions(settings, is_interactive), model)
    prompt = _join(output.piped_text(), question)
    if prompt:
        question_turn = _turn(prompt, images)
        return _answer_once(options, connection, question_turn, system, as_json=json)
    if is_plain or not output.stdin_is_tty():
        raise _no_question()
    paths = None if no_history else settings.paths
    return _converse(options, connection, system, paths, images)


def _answer_once(
    options: "ChatOptions",
    connection: "ServerConnection",
    question: "Turn",
    system: str,
    *,
    as_json: bool,
) -> int:
    from pensieve.cli.chat.context_usage import explain
    from pensieve.cli.chat.conversation import conclude
    from pensieve.cli.chat.receive import Answer

    connected = connection.connect()
    answer = Answer()
    try:
        answer.receive(
            connected.server,
            options.call(connected, (question,), system),
            NoView() if as_json else options.view(),
        )
    except (PromptTooLongError, PromptUnprocessableError) as error:
        raise explain(error, question.text) from error
    if as_json:
        output.data(dumps(_as_json(answer)))
    conclude(answer, options)
    return 0


def _turn(text: str, images: "tuple[ImageBlock, ...]") -> "Turn":
    from pensieve.cli.client.messages import Turn

    return Turn("user", text, images=images)


def _as_json(answer: "Answer") -> dict[str, object]:
    """Return one answer as an object, times in seconds; `thinking` only if there was some."""
    timing, turn, end = answer.timing, answer.turn, answer.end
    thinking = {"thinking": turn.thought} if turn.thought else {}
    return {
        "text": turn.text,
        **thinking,
        "model": end.model if end else "",
        "stop_reason": end.stop_reason if end else "",
        "usage": end.usage.model_dump(mode="json") if end else {},
        "timings": {
            "first_text_s": round(timing.first_text_s, 3),
            "total_s": round(timing.total_s, 3),
            "tokens_per_second": round(timing.tokens_per_second or 0.0, 2),
        },
    }


def _converse(
    options: "ChatOptions",
    connection: "ServerConnection",
    system: str,
    paths: Paths | None,
    images: "Sequence[ImageBlock]",
) -> int:
    from pensieve.cli.chat.conversation import Conversation
    from pensieve.cli.chat.editor import editor_for

    history = paths.chat_history if paths else None
    return Conversation(options, connection, editor_for(history), system, images).run()


def _views(*, is_raw: bool, is_buffered: bool, hides_thinking: bool) -> Callable[[], View]:
    """Return a factory of the view that standard output supports."""
    if is_raw or not output.can_draw():
        shows_thoughts = output.stdout_is_tty() and not hides_thinking
        write_thought = output.status if shows_thoughts else None
        return lambda: _buffered(PlainView(output.stream, write_thought), is_buffered=is_buffered)
    return lambda: _buffered(_drawn_view(hides_thinking=hides_thinking), is_buffered=is_buffered)


def _drawn_view(*, hides_thinking: bool) -> View:
    from pensieve.cli.chat.drawing import Screen  # rich is slow to import

    screen = Screen(output.stream, output.size, output.encoding())
    return DrawnView(screen, hides_thoughts=hides_thinking)


def _buffered(view: View, *, is_buffered: bool) -> View:
    return BufferedView(view) if is_buffered else view


def _no_question() -> UsageError:
    return UsageError(
        "There is no question, and no terminal to type one.",
        hint='Pass it as an argument or pipe it in:\n  pensieve chat "Why is the sky blue?"',
    )


def _join(piped: str | None, arguments: tuple[str, ...]) -> str:
    """Join piped text and question with an empty line between them."""
    return "\n\n".join(
        part for part in ((piped or "").strip(), " ".join(arguments).strip()) if part
    )
