"""A conversation's memory and its commands. What is typed is scripted; the server is a fake one."""

import json
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
from pensieve.daemon.server_record import Address, own_record, publish
from pensieve.errors import NoServerError
from pensieve.paths import under_home
from pensieve.settings.resolve import Settings
from tests.cli.fake_server import Event, FakeServer, delta, health, message, refuse, serving
from tests.cli.program import OWN_KEY

Typed = str | type[BaseException] | Callable[[], str]


class ScriptedEditor:
    """Types what it is told to, and then Ctrl-D."""

    def __init__(self, script: Iterable[Typed]) -> None:
        self._script = iter(script)
        self.is_multi = False
        self.begun: list[str] = []
        self.asides: list[str] = []

    def ask(self, prompt: str, begun: str = "", aside: str = "") -> str:
        self.begun.append(begun)
        self.asides.append(aside)
        step = next(self._script, EOFError)
        if isinstance(step, str):
            return step
        if isinstance(step, type):
            raise step
        return step()


class Talk:
    """A conversation with what went in and came out."""

    def __init__(self, server: FakeServer, home: Path, **changes: object) -> None:
        self.server = server
        self.agreed: list[str] = []
        self.started: list[list[str]] = []
        self.agrees = True
        self.on_start: Callable[[], None] = lambda: None
        self.settings = Settings(under_home(home), port=server.server_port, api_key=OWN_KEY)
        values = {"max_tokens": 100, "temperature": 0.0, "hides_thinking": False}
        self._manner = {**values, "has_figures": False, "view": PlainView, **changes}
        self.editor = ScriptedEditor(())

    def run(self, *script: Typed, model: str | None = None, has_person: bool = True) -> int:
        self.editor = ScriptedEditor(script)
        means = ConnectOptions(
            self.settings, has_person, self._agree, self._start, pause=lambda: None
        )
        manner = ChatOptions(**self._manner, agrees=self._agree)
        return Conversation(manner, ServerConnection(means, model), self.editor, "").run()

    def _agree(self, question: str) -> bool:
        self.agreed.append(question)
        return self.agrees

    def _start(self, command: list[str]) -> int:
        self.started.append(command)
        self.on_start()
        return 0

    @property
    def asked(self) -> list[list[str]]:
        return [
            [str(turn["content"]) for turn in body["messages"]] for _, body in self.server.calls
        ]


@contextmanager
def talk(tmp_path: Path, *answers: Iterable[Event], **changes: object) -> Iterator[Talk]:
    with serving(*answers) as server:
        yield Talk(server, tmp_path, **changes)


def test_what_was_said_is_sent_again(tmp_path: Path) -> None:
    with talk(tmp_path, message("Paris."), message("Two million.")) as chat:
        assert chat.run("Capital of France?", "   ", "How many live there?") == 0
        assert chat.asked == [
            ["Capital of France?"],
            ["Capital of France?", "Paris.", "How many live there?"],
        ]


def test_a_thought_is_sent_again_with_its_signature(tmp_path: Path) -> None:
    with talk(tmp_path, message("a", thoughts=["Hm."]), message("b")) as chat:
        chat.server.thinks = True
        chat.run("one", "two")
        answer = chat.server.calls[1][1]["messages"][1]["content"]
    assert answer[0] == {"type": "thinking", "thinking": "Hm.", "signature": "signed"}


def test_an_error_ends_a_question_and_not_the_conversation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with talk(tmp_path, refuse(529, "too many requests"), message("Paris.")) as chat:
        assert chat.run("First", "Second") == 0
        assert chat.asked[1] == ["Second"]
    assert "too many requests" in capsys.readouterr().err


def test_an_answer_that_is_broken_off_is_kept_as_far_as_it_came(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with talk(tmp_path, [delta("Once upon")], message("a time.")) as chat:
        chat.run("A story", "Go on")
        assert chat.asked[1] == ["A story", "Once upon", "Go on"]
    assert "cut off" in capsys.readouterr().err


def test_ctrl_c_once_is_a_hint_and_twice_leaves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with talk(tmp_path, message("x")) as chat:
        assert chat.run(KeyboardInterrupt, KeyboardInterrupt) == 130
        assert chat.run(KeyboardInterrupt, "Hi", KeyboardInterrupt) == 0
    assert capsys.readouterr().err.count("again leaves") == 3


# the commands


def test_clear_begins_anew(tmp_path: Path) -> None:
    with talk(tmp_path, message("a"), message("b")) as chat:
        chat.run("one", "/clear", "two")
        assert chat.asked == [["one"], ["two"]]


def test_exit_leaves_under_each_of_its_names(tmp_path: Path) -> None:
    with talk(tmp_path) as chat:
        for name in ("/exit", "/quit", "/bye"):
            assert chat.run(name, "never asked") == 0
        assert chat.asked == []


def test_help_names_each_command_in_80_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with talk(tmp_path) as chat:
        chat.run("/help")
    said = capsys.readouterr().err
    assert all(f"/{name} " in said for name in slash_commands.COMMANDS)
    assert max(map(len, said.splitlines())) < 80


def test_the_instructions_are_set_shown_and_dropped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with talk(tmp_path, message("a"), message("b")) as chat:
        chat.run("/system Be brief.", "one", "/system", "/system off", "two")
        assert [body.get("system") for _, body in chat.server.calls] == ["Be brief.", None]
    assert capsys.readouterr().err.count("Instructions: Be brief.") == 2


def test_model_shows_which_and_refuses_what_is_not_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with talk(tmp_path, message("a")) as chat:
        chat.run("/model", "/model someone/tiny", "/model phi-3-mini", "Hi")
        assert chat.asked == [["Hi"]]
    said = capsys.readouterr().err
    assert said.count("tiny, 8192 tokens of context") == 2
    assert "serves tiny, not phi-3-mini" in said


def test_undo_takes_the_last_question_back_to_be_changed(tmp_path: Path) -> None:
    with talk(tmp_path, message("a"), message("b"), message("c")) as chat:
        chat.run("one", "two", "/undo", "three", "/undo", "/undo", "/undo")
        assert chat.asked[2] == ["one", "a", "three"]
        assert [text for text in chat.editor.begun if text] == ["two", "three", "one"]


def test_retry_asks_the_last_question_again_and_more_freely(tmp_path: Path) -> None:
    with talk(tmp_path, message("a"), message("b"), message("c"), message("d")) as chat:
        chat.run("/retry", "one", "two", "/retry", "three")
        assert chat.asked == [
            ["one"],
            ["one", "a", "two"],
            ["one", "a", "two"],
            ["one", "a", "two", "c", "three"],
        ]
        assert [body["temperature"] for _, body in chat.server.calls] == [0.0, 0.0, 0.8, 0.0]


@pytest.mark.parametrize(("usual", "again"), [(None, 1.0), (0.0, 0.8), (0.6, 0.8), (0.9, 0.9)])
def test_retry_without_a_temperature_is_no_colder_than_the_servers(
    tmp_path: Path, usual: float | None, again: float
) -> None:
    with talk(tmp_path, message("a"), message("b"), temperature=None) as chat:
        sampling = {} if usual is None else {"sampling": {"temperature": {"value": usual}}}
        chat.server.healths = lambda: {**health(), **sampling}
        chat.run("one", "/retry")
        bodies = [body for _, body in chat.server.calls]
    assert "temperature" not in bodies[0]
    assert bodies[1]["temperature"] == again


def test_retry_asks_what_found_no_answer(tmp_path: Path) -> None:
    with talk(tmp_path, refuse(529, "busy"), message("a")) as chat:
        chat.run("one", "/retry")
        assert chat.asked == [["one"], ["one"]]


def test_retry_after_clear_has_nothing_to_ask(tmp_path: Path) -> None:
    with talk(tmp_path, message("a")) as chat:
        chat.run("one", "/clear", "/retry")
        assert chat.asked == [["one"]]


def test_a_kept_conversation_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "it's größe.json"
    with talk(tmp_path, message("a", thoughts=["Hm."]), message("b"), message("c")) as chat:
        chat.run("/system Be brief.", "one", f"/save {path}", "two", f"/save {path}", "/save")
        chat.run(f"/load {path}", "three")
        body = chat.server.calls[2][1]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert body["system"] == "Be brief."
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant"] * 2 + ["user"]
    assert body["messages"][:4] == json.loads(path.read_text())["messages"]


def test_save_leaves_other_files_alone_and_load_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    precious = tmp_path / "thesis.txt"
    precious.write_text("precious")
    with talk(tmp_path) as chat:
        chat.run(f"/save {precious}", f"/load {precious}", f"/load {tmp_path}/none", "/save /n/o")
    assert precious.read_text() == "precious"
    said = capsys.readouterr().err
    assert "is no conversation" in said
    assert "holds no conversation" in said
    assert "There is no file" in said
    assert "/n/o cannot be written" in said


def test_stats_tell_of_the_whole_conversation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with talk(tmp_path, message("a", "b"), message("c")) as chat:
        chat.run("/stats", "one", "two", "/stats")
    said = capsys.readouterr().err
    assert "Nothing was answered yet." in said
    assert "2 answers, 3 tokens in " in said
    assert "context 0 % (8 of 8192 tokens)" in said


def test_multi_changes_which_key_sends(tmp_path: Path) -> None:
    with talk(tmp_path) as chat:
        chat.run("/multi")
        assert chat.editor.is_multi
        chat.run("/multi", "/multi")
        assert not chat.editor.is_multi


def test_an_unknown_command_is_not_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with talk(tmp_path) as chat:
        chat.run("/sytem Be brief.", "/usr/bin")
        assert chat.asked == []
    said = capsys.readouterr().err
    assert "Did you mean /system?" in said
    assert "no command /usr/bin" in said


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
def test_a_line_means(line: str, meaning: object) -> None:
    assert slash_commands.read(line) == meaning


@pytest.mark.parametrize(
    ("text", "is_open"),
    [('"""', True), ('"""a', True), ('"""a"""', False), ('a"""', False), ('""""""', False)],
)
def test_three_quotes_are_open_until_three_more(text: str, is_open: bool) -> None:
    assert slash_commands.is_open(text) is is_open


# the context


def test_the_prompt_shows_how_full_the_context_is(tmp_path: Path) -> None:
    with talk(tmp_path, message("a"), message("b")) as chat:
        chat.server.healths = lambda: health() | {"context_tokens": 10}
        chat.run("one", "two")
        assert chat.editor.asides[0] == ""
        assert chat.editor.asides[1].startswith("context 80 % (8 of 10 tokens), /clear")


def too_long(tokens: int) -> Iterator[Event]:
    return refuse(400, f"prompt is too long: {tokens} tokens > 100 maximum")


def test_a_conversation_that_has_outgrown_the_context_loses_its_beginning_only_where_one_agrees(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = [message("a"), message("b"), message("c"), too_long(140), message("d"), message("e")]
    with talk(tmp_path, *answers) as chat:
        chat.server.tokens = lambda body: 20 * len(body["messages"])
        chat.run("one", "two", "three", "four", "five")
        assert chat.asked[3] == ["one", "a", "two", "b", "three", "c", "four"]
        assert chat.asked[4] == ["three", "c", "four"]
        assert chat.asked[5] == ["three", "c", "four", "d", "five"]
    assert len(chat.agreed) == 1
    said = capsys.readouterr().err
    assert "140 tokens, and the model reads 100. /clear" in said
    assert "Left out: the oldest 2 of 3 questions, and their answers." in said


def test_nothing_is_left_out_where_one_does_not_agree(tmp_path: Path) -> None:
    with talk(tmp_path, message("a"), too_long(140), message("b")) as chat:
        chat.agrees = False
        chat.run("one", "two", "/undo", "three")
        assert chat.asked[2] == ["three"]


def test_a_question_that_is_too_long_by_itself_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with talk(tmp_path, too_long(140), message("a"), too_long(180)) as chat:
        chat.server.tokens = lambda body: 140
        chat.run("long", "short", "long")
        assert len(chat.asked) == 3
    said = capsys.readouterr().err
    assert "That is 140 tokens, and the model reads 100." in said


# the server


def test_a_server_that_was_started_anew_is_told_and_the_conversation_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with talk(tmp_path, message("a"), message("b"), message("c")) as chat:

        def after_restart() -> str:
            chat.server.healths = lambda: health() | {"pid": 4242}
            return "two"

        chat.run("one", after_restart, "three")
        assert chat.asked[2] == ["one", "a", "two", "b", "three"]
    assert capsys.readouterr().err.count("Connected again") == 1


def test_a_server_that_has_gone_is_started_where_one_agrees_and_what_was_said_is_kept(
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
        asked = [[turn["content"] for turn in body["messages"]] for _, body in new.calls]
    assert asked == [["one", "a", "two"]]
    assert len(chat.agreed) == 1
    assert chat.started[0][-3:] == ["start", "--model", health()["repo"]]
    assert "Connected again" in capsys.readouterr().err


@contextmanager
def holding(chat: Talk, address: Address) -> Iterator[None]:
    """Starting means: the lock is held and the record tells of the new server."""
    from contextlib import ExitStack

    from pensieve.daemon import server_lock

    with ExitStack() as stack:

        def start() -> None:
            stack.enter_context(server_lock.acquire(chat.settings.paths))
            stack.enter_context(publish(chat.settings.paths, own_record(address)))

        chat.on_start = start
        yield


def test_where_one_does_not_agree_the_command_is_told(tmp_path: Path) -> None:
    with serving() as gone:
        chat = Talk(gone, tmp_path)
    chat.agrees = False
    with pytest.raises(NoServerError) as failure:
        chat.run("Hi")
    assert "pensieve start" in (failure.value.hint or "")
    assert chat.started == []


def test_nobody_is_asked_where_nobody_is(tmp_path: Path) -> None:
    with serving() as gone:
        chat = Talk(gone, tmp_path)
    with pytest.raises(NoServerError):
        chat.run("Hi", has_person=False)
    assert chat.agreed == []


def test_a_model_asked_for_by_name_is_the_one_that_is_started(tmp_path: Path) -> None:
    with serving() as gone:
        chat = Talk(gone, tmp_path)
    with pytest.raises(NoServerError):
        chat.run("Hi", model="smollm2-135m")
    assert chat.started[0][-2:] == ["--model", "smollm2-135m"]


def test_a_server_that_loads_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with talk(tmp_path, message("a")) as chat:
        reports = iter([health("loading"), health("loading")])
        chat.server.healths = lambda: next(reports, health())
        chat.run("one")
        assert chat.asked == [["one"]]
    assert "The server loads tiny" in capsys.readouterr().err
