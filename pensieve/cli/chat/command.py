"""The command `pensieve chat`: its flags, and what becomes of them: one answer or a conversation."""

from collections.abc import Callable
from json import dumps
from typing import Annotated

from cyclopts import Parameter

from pensieve.cli.chat.conversation import ChatOptions, Conversation, conclude
from pensieve.cli.chat.receive import Answer
from pensieve.cli.chat.server_connection import ConnectOptions, ServerConnection
from pensieve.cli.chat.view import BufferedView, DrawnView, NoView, PlainView, View
from pensieve.cli.client.messages import Turn
from pensieve.cli.lifecycle.start_options import Allowed
from pensieve.cli.ui import output
from pensieve.errors import UsageError
from pensieve.paths import Paths
from pensieve.settings import resolve as settings_module

# Enough for a thought and a long piece of code.
DEFAULT_MAX_TOKENS = 4096
# More than any model's context; the server bounds what it generates by what fits.
MAX_TOKENS = 10**9


Print = Annotated[
    bool,
    Parameter(
        name=("--print", "-p"),
        help="Print one answer as plain text, as in a pipe, also on a terminal.",
    ),
]
System = Annotated[
    str,
    Parameter(
        name=("--system", "-s"),
        metavar="TEXT",
        help="Instructions that hold for the whole conversation.",
    ),
]
Model = Annotated[
    str | None,
    Parameter(
        name=("--model", "-m"),
        metavar="NAME",
        help="The model that must answer; an error where the server has another one.",
    ),
]
MaxTokens = Annotated[
    int,
    Parameter(
        validator=Allowed(
            f"a whole number from 1 to {MAX_TOKENS}, such as 1000",
            range(1, MAX_TOKENS + 1).__contains__,
        ),
        metavar="N",
        help=f"The longest answer, {DEFAULT_MAX_TOKENS} tokens unless given.",
    ),
]
Temperature = Annotated[
    float | None,
    Parameter(
        validator=Allowed("a number from 0 to 1, such as 0.7", lambda value: 0 <= value <= 1),
        metavar="T",
        help="From 0 (always the likeliest word) to 1 (freely drawn). Without it, what the"
        " server's settings or the model's makers say.",
    ),
]
Stats = Annotated[
    bool,
    Parameter(help="Show tokens and seconds on standard error also where it is no terminal."),
]
HideThinking = Annotated[bool, Parameter(help="Do not show what a model thinks before it answers.")]
Json = Annotated[
    bool, Parameter(help="Print one JSON object: text, model, stop_reason, usage, timings.")
]


def chat(  # noqa: PLR0913 -- each is a flag
    *question: str,
    print: Print = False,  # noqa: A002 -- the flag's name
    system: System = "",
    model: Model = None,
    max_tokens: MaxTokens = DEFAULT_MAX_TOKENS,
    temperature: Temperature = None,
    raw: bool = False,
    no_stream: bool = False,
    hide_thinking: HideThinking = False,
    json: Json = False,
    stats: Stats = False,
    no_history: bool = False,
) -> int:
    """Ask the model, or converse with it.

    For example:
      pensieve chat "Why is the sky blue?"
      git diff | pensieve chat "Write a commit message for this."
      pensieve chat                          # a conversation; /help, Ctrl-D leaves

    Parameters
    ----------
    question
        The question. What is piped in comes before it.
    raw
        Show markdown as the model writes it.
    no_stream
        Show the answer when it is whole.
    no_history
        Keep nothing of what is typed.
    """
    settings = settings_module.resolve()
    is_plain = print or json
    manner = ChatOptions(
        max_tokens=max_tokens,
        temperature=temperature,
        hides_thinking=hide_thinking,
        has_figures=stats or (output.is_seen() and not is_plain),
        view=_views(is_raw=raw or print, is_held=no_stream, hides_thinking=hide_thinking or print),
    )
    has_person = output.is_typed() and output.is_seen()
    link = ServerConnection(ConnectOptions(settings, has_person), model)
    asked = _joined(output.piped_text(), question)
    if asked:
        return _answer_once(manner, link, (Turn("user", asked),), system, as_json=json)
    if is_plain or not output.is_typed():
        raise _no_question()
    return _converse(manner, link, system, None if no_history else settings.paths)


def _answer_once(
    manner: ChatOptions,
    link: ServerConnection,
    turns: tuple[Turn, ...],
    system: str,
    *,
    as_json: bool,
) -> int:
    peer = link.peer()
    answer = Answer()
    answer.receive(
        peer.server, manner.call(peer, turns, system), NoView() if as_json else manner.view()
    )
    if as_json:
        output.data(dumps(_as_json(answer)))
    conclude(answer, manner)
    return 0


def _as_json(answer: Answer) -> dict[str, object]:
    """One answer as an object. Seconds; thinking only where there was some."""
    figures, turn, ended = answer.figures, answer.turn, answer.ended
    thinking = {"thinking": turn.thought} if turn.thought else {}
    return {
        "text": turn.text,
        **thinking,
        "model": ended.model if ended else "",
        "stop_reason": ended.stop_reason if ended else "",
        "usage": dict(ended.usage) if ended else {},
        "timings": {
            "first_text_s": round(figures.first_text_s, 3),
            "total_s": round(figures.total_s, 3),
            "tokens_per_second": round(figures.tokens_per_second or 0.0, 2),
        },
    }


def _converse(manner: ChatOptions, link: ServerConnection, system: str, paths: Paths | None) -> int:
    from pensieve.cli.chat.editor import editor_for

    history = paths.chat_history if paths else None
    return Conversation(manner, link, editor_for(history), system).run()


def _views(*, is_raw: bool, is_held: bool, hides_thinking: bool) -> Callable[[], View]:
    """What makes the view of each answer, as standard output can show it."""
    if is_raw or not output.is_drawn():
        shows_thoughts = output.is_read() and not hides_thinking
        murmur = output.status if shows_thoughts else None
        return lambda: _held(PlainView(output.stream, murmur), is_held=is_held)
    return lambda: _held(_drawn_view(hides_thinking=hides_thinking), is_held=is_held)


def _drawn_view(*, hides_thinking: bool) -> View:
    from pensieve.cli.chat.markdown_rows import Rows
    from pensieve.cli.chat.screen import Screen

    screen = Screen(output.stream, output.size)
    return DrawnView(Rows(output.encoding()), screen, hides_thoughts=hides_thinking)


def _held(view: View, *, is_held: bool) -> View:
    return BufferedView(view) if is_held else view


def _no_question() -> UsageError:
    return UsageError(
        "There is no question, and nobody at a terminal to ask for one.",
        hint='Give it as an argument or pipe it in:\n  pensieve chat "Why is the sky blue?"',
    )


def _joined(piped: str | None, words: tuple[str, ...]) -> str:
    """What was piped in, then the question, with an empty line between them."""
    return "\n\n".join(part for part in ((piped or "").strip(), " ".join(words).strip()) if part)
