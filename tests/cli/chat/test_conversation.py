"""Turns and slash commands of a conversation. Typing is scripted; the server is the fake one."""

import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pensieve.cli.chat import slash_commands
from pensieve.cli.chat.conversation import ChatOptions, Conversation
from pensieve.cli.chat.server_connection import ConnectOptions, ServerConnection
from pensieve.cli.chat.slash_commands import Command, Message, Unknown
from pensieve.cli.chat.view import PlainView
from pensieve.daemon import server_lock
from pensieve.daemon.server_record import Address, own_record, publish
from pensieve.errors import NoServerError, PromptUnprocessableError, RecordUnreadableError
from pensieve.paths import under_home
from pensieve.settings.resolve import Settings
from tests.cli.fake_server import (
    Event,
    FakeServer,
    delta,
    health,
    message,
    refuse,
    serving,
    text_of,
)
from tests.cli.program import OWN_KEY

Typed = str | type[BaseException] | Callable[[], str]


class ScriptedEditor:
    """Types its script, then Ctrl-D."""

    def __init__(self, script: Iterable[Typed]) -> None:
        self._script = iter(script)
        self.is_multi = False
        self.prefills: list[str] = []
        self.asides: list[str] = []

    def ask(self, prompt: str, prefill: str = "", status: str = "") -> str:
        self.prefills.append(prefill)
        self.asides.append(status)
        step = next(self._script, EOFError)
        if isinstance(step, str):
            return step
        if isinstance(step, type):
            raise step
        return step()


class Talk:
    """A conversation with its input and output."""

    def __init__(self, server: FakeServer, home: Path, **changes: object) -> None:
        self.server = server
        self.agreed: list[str] = []
        self.started: list[list[str]] = []
        self.answers_yes = True
        self.on_start: Callable[[], None] = lambda: None
        self.settings = Settings(under_home(home), port=server.server_port, api_key=OWN_KEY)
        values = {"max_tokens": 100, "temperature": 0.0, "hides_thinking": False}
        self._options = {**values, "shows_timing": False, "view": PlainView, **changes}
        self.editor = ScriptedEditor(())

    def run(self, *script: Typed, model: str | None = None, is_interactive: bool = True) -> int:
        self.editor = ScriptedEditor(script)
        connect_options = ConnectOptions(
            self.settings, is_interactive, self._agree, self._start, pause=lambda: None
        )
        options = ChatOptions(**self._options, ask_yes_no=self._agree, confirm=self._agree)
        return Conversation(
            options, ServerConnection(connect_options, model), self.editor, ""
        ).run()

    def _agree(self, question: str) -> bool:
        self.agreed.append(question)
        return self.answers_yes

    def _start(self, command: list[str]) -> int:
        self.started.append(command)
        self.on_start()
        return 0

    @property
    def questions(self) -> list[list[str]]:
        return questions_of(self.server)


def questions_of(server: FakeServer) -> list[list[str]]:
    return [[text_of(turn) for turn in body["messages"]] for _, body in server.calls]


@contextmanager
def talk(tmp_path: Path, *answers: Iterable[Event], **changes: object) -> Iterator[Talk]:
    with serving(*answers) as server:
        yield Talk(server, tmp_path, **changes)


def test_earlier_turns_are_sent_again(tmp_path: Path) -> None:
    with talk(tmp_path, message("Paris."), message("Two million.")) as chat:
        assert chat.run("Capital of France?", "   ", "How many live there?") == 0
        assert chat.questions == [
            ["Capital of France?"],
            ["Capital of France?", "Paris.", "How many live there?"],
        ]


def test_a_thought_is_sent_again_with_its_signature(tmp_path: Path) -> None:
    with talk(tmp_path, message("a", thoughts=["Hm."]), message("b")) as chat:
        chat.server.thinks = True
        chat.run("one", "two")
        answer = chat.server.calls[1][1]["messages"][1]["content"]
    assert answer[0] == {"type": "thinking", "thinking": "Hm.", "signature": "signed"}


def test_error_ends_the_question_but_not_the_conversation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with talk(tmp_path, refuse(529, "too many requests"), message("Paris.")) as chat:
        assert chat.run("First", "Second") == 0
        assert chat.questions[1] == ["Second"]
    assert "too many requests" in capsys.readouterr().err


def test_partial_answer_stays_in_the_conversation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with talk(tmp_path, [delta("Once upon")], message("a time.")) as chat:
        chat.run("A story", "Go on")
        assert chat.questions[1] == ["A story", "Once upon", "Go on"]
    assert "ended before the answer" in capsys.readouterr().err


def test_ctrl_c_once_hints_and_twice_quits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with talk(tmp_path, message("x")) as chat:
        assert chat.run(KeyboardInterrupt, KeyboardInterrupt) == 130
        assert chat.run(KeyboardInterrupt, "Hi", KeyboardInterrupt) == 0
    assert capsys.readouterr().err.count("again quits") == 3


# the commands


def test_clear_drops_all_turns(tmp_path: Path) -> None:
    with talk(tmp_path, message("a"), message("b")) as chat:
        chat.run("one", "/clear", "two")
        assert chat.questions == [["one"], ["two"]]


def test_exit_quits_under_each_alias(tmp_path: Path) -> None:
    with talk(tmp_path) as chat:
        for name in ("/exit", "/quit", "/bye"):
            assert chat.run(name, "never asked") == 0
        assert chat.questions == []


def test_help_names_each_command_in_80_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with talk(tmp_path) as chat:
        chat.run("/help")
    printed = capsys.readouterr().err
    assert all(f"/{name} " in printed for name in slash_commands.COMMANDS)
    assert max(map(len, printed.splitlines())) < 80


def test_system_sets_shows_and_removes_instructions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with talk(tmp_path, message("a"), message("b")) as chat:
        chat.run("/system Be brief.", "one", "/system", "/system off", "two")
        systems = [body.get("system") for _, body in chat.server.calls]
        assert systems == [[{"type": "text", "text": "Be brief."}], None]
    assert capsys.readouterr().err.count("Instructions: Be brief.") == 2


def test_model_shows_the_model_and_refuses_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with talk(tmp_path, message("a")) as chat:
        chat.run("/model", "/model someone/tiny", "/model phi-3-mini", "Hi")
        assert chat.questions == [["Hi"]]
    printed = capsys.readouterr().err
    assert printed.count("tiny, 8192 tokens of context") == 2
    assert "serves tiny, not phi-3-mini" in printed


def test_undo_offers_the_last_question_for_editing(tmp_path: Path) -> None:
    with talk(tmp_path, message("a"), message("b"), message("c")) as chat:
        chat.run("one", "two", "/undo", "three", "/undo", "/undo", "/undo")
        assert chat.questions[2] == ["one", "a", "three"]
        assert [text for text in chat.editor.prefills if text] == ["two", "three", "one"]


def test_retry_asks_again_at_a_higher_temperature(tmp_path: Path) -> None:
    with talk(tmp_path, message("a"), message("b"), message("c"), message("d")) as chat:
        chat.run("/retry", "one", "two", "/retry", "three")
        assert chat.questions == [
            ["one"],
            ["one", "a", "two"],
            ["one", "a", "two"],
            ["one", "a", "two", "c", "three"],
        ]
        assert [body["temperature"] for _, body in chat.server.calls] == [0.0, 0.0, 0.8, 0.0]


@pytest.mark.parametrize(("usual", "again"), [(None, 1.0), (0.0, 0.8), (0.6, 0.8), (0.9, 0.9)])
def test_retry_temperature_is_at_least_the_servers(
    tmp_path: Path, usual: float | None, again: float
) -> None:
    with talk(tmp_path, message("a"), message("b"), temperature=None) as chat:
        sampling = {} if usual is None else {"sampling": {"temperature": {"value": usual}}}
        chat.server.healths = lambda: {**health(), **sampling}
        chat.run("one", "/retry")
        bodies = [body for _, body in chat.server.calls]
    assert "temperature" not in bodies[0]
    assert bodies[1]["temperature"] == again


def test_retry_repeats_an_unanswered_question(tmp_path: Path) -> None:
    with talk(tmp_path, refuse(529, "busy"), message("a")) as chat:
        chat.run("one", "/retry")
        assert chat.questions == [["one"], ["one"]]


def test_retry_after_clear_has_nothing_to_ask(tmp_path: Path) -> None:
    with talk(tmp_path, message("a")) as chat:
        chat.run("one", "/clear", "/retry")
        assert chat.questions == [["one"]]


def test_loaded_conversation_continues(tmp_path: Path) -> None:
    path = tmp_path / "it's größe.json"
    with talk(tmp_path, message("a", thoughts=["Hm."]), message("b"), message("c")) as chat:
        chat.run("/system Be brief.", "one", f"/save {path}", "two", f"/save {path}", "/save")
        chat.run(f"/load {path}", "three")
        body = chat.server.calls[2][1]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert body["system"] == [{"type": "text", "text": "Be brief."}]
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant"] * 2 + ["user"]
    assert body["messages"][:4] == json.loads(path.read_text())["messages"]


@pytest.mark.parametrize("is_replaced", [True, False])
def test_save_asks_before_it_replaces_another_conversation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, is_replaced: bool
) -> None:
    path = tmp_path / "other.json"
    with talk(tmp_path, message("a"), message("b"), message("c")) as chat:
        chat.run("one", f"/save {path}")
        before = path.read_text()
        assert chat.agreed == []
        chat.answers_yes = is_replaced
        chat.run("two", f"/save {path}")
    assert chat.agreed == [f"{path} holds another conversation. Replace it?"]
    assert (path.read_text() != before) is is_replaced
    assert ("Not saved." in capsys.readouterr().err) is not is_replaced


def test_one_loaded_question_is_in_the_singular(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "one.json"
    with talk(tmp_path, message("a"), message("b")) as chat:
        chat.run("one", f"/save {path}", f"/load {path}", "two", f"/save {path}", f"/load {path}")
    printed = capsys.readouterr().err
    assert "Loaded: 1 question and its answer.\n" in printed
    assert "Loaded: 2 questions and their answers.\n" in printed
    assert chat.agreed == []


def test_save_spares_other_files_and_load_names_the_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    precious = tmp_path / "thesis.txt"
    precious.write_text("precious")
    with talk(tmp_path) as chat:
        chat.run(f"/save {precious}", f"/load {precious}", f"/load {tmp_path}/none", "/save /n/o")
    assert precious.read_text() == "precious"
    printed = capsys.readouterr().err
    assert "is not a conversation; it" in printed
    assert "is not a conversation." in printed
    assert "is not a readable file" in printed
    assert "/n/o cannot be written" in printed


def test_stats_cover_the_whole_conversation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with talk(tmp_path, message("a", "b"), message("c")) as chat:
        chat.run("/stats", "one", "two", "/stats")
    printed = capsys.readouterr().err
    assert "No answers yet." in printed
    assert "2 answers, 3 tokens in " in printed
    assert "context 0 % (8 of 8192 tokens)" in printed


def test_multi_swaps_the_sending_key(tmp_path: Path) -> None:
    with talk(tmp_path) as chat:
        chat.run("/multi")
        assert chat.editor.is_multi
        chat.run("/multi", "/multi")
        assert not chat.editor.is_multi


def test_an_unknown_command_is_not_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with talk(tmp_path) as chat:
        chat.run("/sytem Be brief.", "/usr/bin")
        assert chat.questions == []
    printed = capsys.readouterr().err
    assert "Did you mean /system?" in printed
    assert "no command /usr/bin" in printed


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("  Hi  ", Message("Hi")),
        ("//usr/bin is what?", Message("/usr/bin is what?")),
        ("/save  my file ", Command("save", "my file")),
        ("/?", Command("help", "")),
        ("/sav", Unknown("sav", "save")),
        ('"""\n/a\n b\n"""', Message("/a\n b")),
        ('"""one"""', Message("one")),
        ('""" ""', Message(' ""')),
        ("a\n/b", Message("a\n/b")),
    ],
)
def test_typed_line_is_parsed(line: str, meaning: object) -> None:
    assert slash_commands.read(line) == meaning


@pytest.mark.parametrize(
    ("text", "is_open"),
    [('"""', True), ('"""a', True), ('"""a"""', False), ('a"""', False), ('""""""', False)],
)
def test_three_quotes_are_open_until_three_more(text: str, is_open: bool) -> None:
    assert slash_commands.is_open(text) is is_open


# the context


def test_prompt_shows_context_usage(tmp_path: Path) -> None:
    with talk(tmp_path, message("a"), message("b")) as chat:
        chat.server.healths = lambda: health() | {"context_tokens": 10}
        chat.run("one", "two")
        assert chat.editor.asides[0] == ""
        assert chat.editor.asides[1].startswith("context 80 % (8 of 10 tokens), /clear")


def too_long(tokens: int) -> Iterator[Event]:
    return refuse(400, f"prompt is too long: {tokens} tokens > 100 maximum")


def test_oldest_turns_are_dropped_if_the_user_agrees(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = [message("a"), message("b"), message("c"), too_long(140), message("d"), message("e")]
    with talk(tmp_path, *answers) as chat:
        chat.server.tokens = lambda body: 20 * len(body["messages"])
        chat.run("one", "two", "three", "four", "five")
        assert chat.questions[3] == ["one", "a", "two", "b", "three", "c", "four"]
        assert chat.questions[4] == ["three", "c", "four"]
        assert chat.questions[5] == ["three", "c", "four", "d", "five"]
    assert len(chat.agreed) == 1
    printed = capsys.readouterr().err
    assert "140 tokens, and the model's context is 100. /clear" in printed
    assert "Dropped the oldest 2 of 3 questions and their answers." in printed


def test_oldest_turns_are_dropped_after_a_refusal_without_a_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal = PromptUnprocessableError(2, prompt_tokens=130, done_tokens=70).message
    answers = [message("a"), message("b"), refuse(400, refusal), message("c")]
    with talk(tmp_path, *answers) as chat:
        chat.server.tokens = lambda body: 25 * len(body["messages"])
        chat.run("one", "two", "three")
        assert chat.questions[3:] == [["three"]]
    assert len(chat.agreed) == 1
    printed = capsys.readouterr().err
    assert "ended 2 times at the first 130 tokens of this conversation" in printed
    assert "Dropped the oldest 2 of 2 questions and their answers." in printed


def test_question_that_cannot_be_processed_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal = PromptUnprocessableError(2, prompt_tokens=130, done_tokens=70).message
    with talk(tmp_path, refuse(400, refusal)) as chat:
        chat.run("long")
    assert chat.agreed == []
    assert refusal in " ".join(capsys.readouterr().err.split())


def test_nothing_is_dropped_if_the_user_declines(tmp_path: Path) -> None:
    with talk(tmp_path, message("a"), too_long(140), message("b")) as chat:
        chat.answers_yes = False
        chat.run("one", "two", "/undo", "three")
        assert chat.questions[2] == ["three"]


def test_question_longer_than_the_context_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with talk(tmp_path, too_long(140), message("a"), too_long(180)) as chat:
        chat.server.tokens = lambda body: 140
        chat.run("long", "short", "long")
        assert len(chat.questions) == 3
    printed = capsys.readouterr().err
    assert "The question has 140 tokens; the model's context is 100." in printed


# the server


def test_conversation_survives_a_server_restart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with talk(tmp_path, message("a"), message("b"), message("c")) as chat:

        def after_restart() -> str:
            chat.server.healths = lambda: health() | {"pid": 4242}
            return "two"

        chat.run("one", after_restart, "three")
        assert chat.questions[2] == ["one", "a", "two", "b", "three"]
    assert capsys.readouterr().err.count("Reconnected") == 1


def test_stopped_server_is_started_if_the_user_agrees(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(message("b")) as new, talk(tmp_path, message("a")) as chat:

        def once_gone() -> str:
            chat.server.shutdown()
            chat.server.server_close()
            return "two"

        new.healths = lambda: health() | {"pid": 4242}
        address = Address("127.0.0.1", new.server_port, "tiny", "cpu")
        chat.settings.paths.state.mkdir(parents=True)
        with holding(chat, address):
            chat.run("one", once_gone)
    assert questions_of(new) == [["one", "a", "two"]]
    assert len(chat.agreed) == 1
    assert chat.started[0][-3:] == ["start", "--model", health()["repo"]]
    assert "Reconnected" in capsys.readouterr().err


@contextmanager
def holding(chat: Talk, address: Address) -> Iterator[None]:
    """Simulate a start: take the lock and publish the record of the new server."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def start() -> None:
            stack.enter_context(server_lock.acquire(chat.settings.paths))
            stack.enter_context(publish(chat.settings.paths, own_record(address)))

        chat.on_start = start
        yield


def test_start_command_is_shown_if_the_user_declines(tmp_path: Path) -> None:
    with serving() as gone:
        chat = Talk(gone, tmp_path)
    chat.answers_yes = False
    with pytest.raises(NoServerError) as failure:
        chat.run("Hi")
    assert "pensieve start" in (failure.value.hint or "")
    assert chat.started == []


def test_without_a_terminal_no_question_is_asked(tmp_path: Path) -> None:
    with serving() as gone:
        chat = Talk(gone, tmp_path)
    with pytest.raises(NoServerError):
        chat.run("Hi", is_interactive=False)
    assert chat.agreed == []


def test_requested_model_is_the_one_that_is_started(tmp_path: Path) -> None:
    with serving() as gone:
        chat = Talk(gone, tmp_path)
    with pytest.raises(NoServerError):
        chat.run("Hi", model="smollm2-135m")
    assert chat.started[0][-2:] == ["--model", "smollm2-135m"]


def test_server_whose_record_is_damaged_is_named(tmp_path: Path) -> None:
    with talk(tmp_path) as chat, server_lock.acquire(chat.settings.paths):
        chat.settings.paths.server_file.write_text("{", encoding="utf-8")
        with pytest.raises(RecordUnreadableError, match=rf"pid {os.getpid()}"):
            chat.run("Hi")
    assert chat.agreed == []


def test_loading_server_is_awaited(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with talk(tmp_path, message("a")) as chat:
        reports = iter([health("loading"), health("loading")])
        chat.server.healths = lambda: next(reports, health())
        chat.run("one")
        assert chat.questions == [["one"]]
    assert "The server is loading tiny" in capsys.readouterr().err
