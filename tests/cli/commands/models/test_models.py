"""The commands models, show, pull, rm and use."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from pensieve.cli.app import run
from pensieve.cli.commands.models.models import COLUMNS
from pensieve.cli.model_facts import model_entry, row
from pensieve.daemon import server_lock
from pensieve.daemon.server_record import Address, own_record, publish
from pensieve.engine.disk.speculation_record import store_state
from pensieve.engine.generation import SpeculationState
from pensieve.models.catalog.find import find
from pensieve.models.catalog.memory_fit import memory_limit_of_mac
from pensieve.models.catalog.sources import AUTO_NAMES, CATALOG
from pensieve.models.folder.installed import installed_models
from pensieve.models.folder.snapshot import MARKER, ModelFile, Snapshot, write_snapshot
from pensieve.paths import Paths, under_home
from pensieve.settings.resolve import Settings, resolve
from tests.cli.program import at_terminal, pensieve
from tests.support import tiny_models
from tests.support.fake_hub import FakeHub, files_of, serving

REPO = "mlx-community/tiny-llama"
WEIGHTS = "model.safetensors"


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    for name in [name for name in os.environ if name.startswith("PENSIEVE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PENSIEVE_HOME", str(tmp_path / "pensieve"))
    return under_home(tmp_path / "pensieve")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.build("llama", tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def hub(tiny: Path) -> Iterator[FakeHub]:
    with serving(FakeHub(REPO, files_of(tiny))) as hub:
        yield hub


@pytest.fixture
def fetched(paths: Paths, tiny: Path) -> Path:
    """The tiny model, as downloaded."""
    folder = paths.models / "mlx-community--tiny-llama"
    folder.mkdir(parents=True)
    for file in tiny.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    files = tuple(ModelFile(file.name, file.stat().st_size) for file in tiny.iterdir())
    write_snapshot(Snapshot(REPO, "f" * 40, files), folder / MARKER)
    return folder


def report(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    return json.loads(capsys.readouterr().out)


# models


def test_the_list_has_size_need_and_context_here_within_80_columns(
    paths: Paths, fetched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["models"]) == 0
    out, err = capsys.readouterr()
    head, *rows = out.splitlines()
    assert head == COLUMNS
    assert [line[2:].split()[0] for line in rows] == [*(m.name for m in CATALOG), REPO]
    assert max(map(len, (out + err).splitlines())) <= 80
    assert rows[0].endswith("chosen")
    assert rows[-1].endswith("here")
    assert "8,192" in rows[-1]


@pytest.mark.parametrize(
    ("memory_gib", "context"), [(8, "does not fit"), (16, "96,000"), (64, "262,144")]
)
def test_context_depends_on_the_machine(paths: Paths, memory_gib: int, context: str) -> None:
    (model,) = [one for one in installed_models(paths.models) if one.source.name == "qwen3.5-9b"]
    entry = model_entry(model, memory_limit_of_mac(memory_gib << 30), Settings(paths))
    assert row(entry).startswith(f"  {'qwen3.5-9b':<20}   6.0 GB ")
    assert row(entry).endswith(f" GB {context:>13}")


def test_the_list_marks_what_auto_means_here_and_suggests_nothing_to_a_pipe(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PENSIEVE_MODEL", "auto")
    assert run(["models"]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines() if line.endswith("chosen")] == [
        find("auto").name
    ]
    assert "pensieve use" not in out + err


def test_models_json_marks_downloaded_served_and_chosen(
    paths: Paths, fetched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        server_lock.acquire(paths),
        publish(paths, own_record(Address("127.0.0.1", 1, REPO, "cpu"))),
    ):
        assert run(["models", "--json"]) == 0
        assert run(["models"]) == 0
    out = capsys.readouterr().out
    assert run(["ls", "--json"]) == 0
    assert report(capsys)["models"]
    listed, end = json.JSONDecoder().raw_decode(out)
    by_name = {entry["name"]: entry for entry in listed["models"]}
    assert by_name[REPO]["is_here"] is by_name[REPO]["is_served"] is True
    assert by_name["phi-3-mini"]["is_chosen"] is True
    assert by_name["phi-3-mini"]["is_here"] is False
    assert isinstance(by_name["phi-3-mini"]["needs_bytes"], int)
    assert listed["limit_bytes"] > 0
    assert out[end:].splitlines()[-1].startswith("* mlx-community/tiny-llama")
    assert out[end:].splitlines()[-1].endswith("served now")


# show


def test_show_prints_context_quantization_size_licence_memory_and_source(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["show", "qwen3-coder-30b"]) == 0
    out = capsys.readouterr().out
    for fact in (
        "262,144 tokens", "4 bits", "17.2 GB", "Apache-2.0", "a token", "mlx-community/Qwen3-Coder",
        "pensieve pull qwen3-coder-30b", "not tried", "rank 182 of 313", "SWE-bench Verified 31.8",
    ):  # fmt: skip
        assert fact in " ".join(out.split()), fact
    assert max(map(len, out.splitlines())) < 80


def test_show_of_a_fetched_model_reads_its_files(
    paths: Paths, fetched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["show", REPO, "--json"]) == 0
    shown = report(capsys)
    assert shown["folder"] == str(fetched)
    assert shown["revision"] == "f" * 40
    assert shown["model_context_tokens"] == 8192
    assert shown["licence"] is None
    assert run(["show", REPO]) == 0
    assert "see its page on the Hub" in capsys.readouterr().out


def test_show_prints_sampling_and_its_origin(
    paths: Paths, fetched: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stated = {"temperature": 0.6, "top_k": 20, "top_p": 7}
    (fetched / "generation_config.json").write_text(json.dumps(stated), encoding="utf-8")
    monkeypatch.setenv("PENSIEVE_TOP_K", "40")
    assert run(["show", REPO]) == 0
    out, err = capsys.readouterr()
    sampling = "sampling temperature 0.6 (generation_config.json), top_k 40 (setting)"
    assert sampling in " ".join(out.split())
    assert "generation_config.json are ignored: top_p is not a number above 0, up to 1" in err
    assert run(["show", REPO, "--json"]) == 0
    shown = report(capsys)["sampling"]
    assert shown["temperature"] == {"value": 0.6, "origin": "generation_config.json"}
    assert shown["top_p"] == {"value": 1.0, "origin": "default"}
    assert run(["show", "someone/something", "--json"]) == 0
    assert report(capsys)["sampling"] is None


@pytest.mark.parametrize(
    ("state", "setting", "row"),
    [
        (None, "auto", "decided at its first start"),
        (SpeculationState("pays", 32, 4.8), "auto", "on: 32 tokens at once take 4.8 times"),
        (SpeculationState("caches"), "auto", "off: this model's caches cannot drop"),
        (SpeculationState("pays"), "off", "off by the setting (pensieve restart --speculation"),
    ],
)
def test_show_prints_why_steps_verify_drafts_or_do_not(
    state: SpeculationState | None,
    setting: str,
    row: str,
    paths: Paths,
    fetched: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if state is not None:
        store_state(paths.prefixes, fetched, state)
    monkeypatch.setenv("PENSIEVE_SPECULATION", setting)
    assert run(["show", REPO]) == 0
    assert f"speculation {row}" in " ".join(capsys.readouterr().out.split())
    assert run(["show", REPO, "--json"]) == 0
    reason = (report(capsys)["speculation"] or {}).get("reason")
    assert reason == ("setting" if setting == "off" else state and state.reason)


def test_show_of_a_folder_and_of_an_unknown_repository(
    paths: Paths, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["show", str(tiny)]) == 0
    assert "your own folder" in capsys.readouterr().out
    assert run(["show", "someone/something"]) == 0
    assert "known after download" in capsys.readouterr().out
    assert run(["show", "someone/something", "--json"]) == 0
    assert report(capsys)["size_bytes"] is None
    assert run(["show", "phi3"]) == 69


def test_show_prints_the_revision_of_a_download(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["show", "qwen3.8-27b", "--json"]) == 0
    shown = report(capsys)
    assert shown["revision"] == "3e6447f082e89cc7f0bc6e5441afd38dfce760ff"
    assert shown["agent_rank"] == 52


@pytest.mark.parametrize("command", ["show", "use"])
def test_a_folder_that_would_not_load_is_refused(
    paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen9_super"}')
    assert run([command, str(folder)]) == 65
    assert "is of the type qwen9_super" in capsys.readouterr().err
    assert not paths.config_file.exists()


@pytest.mark.parametrize(
    "arguments", [["start"], ["start", "--no-wait"], ["start", "--foreground"]]
)
def test_a_folder_that_would_not_load_is_not_started(
    paths: Paths, tmp_path: Path, arguments: list[str]
) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen9_super"}')
    done = pensieve(
        *arguments, "--device", "cpu", "--port", "7833", "--model", str(folder), home=tmp_path
    )
    assert done.returncode == 65
    assert done.stderr.decode().count("qwen9_super") == 1
    assert b"Traceback" not in done.stderr
    assert done.stdout == b""
    assert not paths.server_log.exists()


def test_a_restart_refuses_such_a_folder_before_anything_is_stopped(
    paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen9_super"}')
    with (
        server_lock.acquire(paths),
        publish(paths, own_record(Address("127.0.0.1", 1, "tiny", "cpu"))),
    ):
        assert run(["restart", "--model", str(tmp_path)]) == 65
        assert run(["restart", "--model", "no-such-model"]) == 69
    assert "qwen9_super" in capsys.readouterr().err


# pull


def test_pull_refuses_a_model_that_would_not_load(
    hub: FakeHub, paths: Paths, tmp_path: Path
) -> None:
    hub.files["config.json"] = b'{"model_type": "deepseek_v4_mtp"}'
    done = pensieve("pull", REPO, home=tmp_path, HF_ENDPOINT=hub.endpoint)
    assert done.returncode == 65
    assert done.stderr.decode().startswith(f"Error: {REPO} is a draft")
    assert b"Traceback" not in done.stderr
    assert hub.sent == {"config.json": len(hub.files["config.json"])}
    assert not list(paths.models.glob("[!.]*"))


HEAD = "acme/Qwen3.8-27B-MTP-4bit"


@pytest.fixture
def head_hub(tiny: Path) -> Iterator[FakeHub]:
    """A Hub with an MTP head."""
    files = {
        "config.json": b'{"model_type": "qwen3_5_mtp", "text_config": {"hidden_size": 64}}',
        WEIGHTS: (tiny / WEIGHTS).read_bytes(),
    }
    with serving(FakeHub(HEAD, files)) as hub:
        yield hub


def test_head_is_pulled_and_listed_and_refused_as_a_model(
    head_hub: FakeHub,
    paths: Paths,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    for _ in range(2):  # downloads, then verifies
        done = pensieve("pull", HEAD, home=tmp_path, HF_ENDPOINT=head_hub.endpoint)
        assert done.returncode == 0, done.stderr
        assert done.stdout.decode().count(HEAD) == 1
        head_hub.endpoint = "http://127.0.0.1:1"
    assert "every file matches" in done.stdout.decode()
    assert run(["models"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if HEAD in line)
    assert line.endswith("MTP head for qwen3.8-27b")
    assert run(["models", "--json"]) == 0
    listed = {each["name"]: each for each in json.loads(capsys.readouterr().out)["models"]}
    assert (listed[HEAD]["is_head"], listed[HEAD]["context_tokens"]) == (True, None)
    assert not listed["phi-3-mini"]["is_head"]
    for command in (["show", HEAD], ["plan", "--model", HEAD], ["use", HEAD]):
        assert run(command) == 65, command
        err = capsys.readouterr().err
        assert err.startswith(f"Error: {HEAD} is an MTP head, which makes another model faster")
        assert "pensieve start --model qwen3.8-27b" in err
    assert run(["start", "--device", "cpu", "--model", HEAD]) == 65
    assert "pensieve start --model qwen3.8-27b" in capsys.readouterr().err
    assert run(["rm", HEAD, "-y"]) == 0
    assert not list(paths.models.glob("[!.]*"))


def test_start_refuses_a_head_before_its_download_and_says_what_to_do(
    head_hub: FakeHub, paths: Paths, tmp_path: Path
) -> None:
    arguments = ("start", "--device", "cpu", "--model", HEAD)
    done = pensieve(*arguments, home=tmp_path, HF_ENDPOINT=head_hub.endpoint)
    assert done.returncode == 65
    err = done.stderr.decode()
    assert f"{HEAD} is an MTP head" in err
    assert f"  pensieve pull {HEAD}\n  pensieve start --model qwen3.8-27b" in err
    assert set(head_hub.sent) == {"config.json"}
    assert not list(paths.models.glob("[!.]*"))


def test_head_in_an_own_folder_is_refused_with_its_model_next_to_it(
    paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = tmp_path / "Tiny-9B-MTP-4bit"
    head.mkdir()
    (head / "config.json").write_text('{"model_type": "qwen3_5_mtp"}')
    (head / WEIGHTS).write_bytes(b"")
    for command in (["show", str(head)], ["plan", "--model", str(head)]):
        assert run(command) == 65
        assert f"pensieve start --model {tmp_path / 'Tiny-9B-4bit'}" in capsys.readouterr().err


def test_pull_downloads_then_verifies_and_repairs(hub: FakeHub, tmp_path: Path) -> None:
    def pull(*arguments: str) -> str:
        done = pensieve("pull", REPO, *arguments, home=tmp_path, HF_ENDPOINT=hub.endpoint)
        assert done.returncode == 0, done.stderr
        assert b"\x1b" not in done.stderr
        return done.stdout.decode()

    assert "is downloaded. Serve it" in pull()
    folder = tmp_path / "pensieve" / "models" / "mlx-community--tiny-llama"
    assert "matches its published hash" in pull()
    weights = bytearray((folder / WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (folder / WEIGHTS).write_bytes(weights)
    report = json.loads(pull("--json"))
    assert report["fetched_anew"] == [WEIGHTS]
    assert report["was_here"] is True
    assert (folder / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


def test_pull_refuses_a_served_model(
    paths: Paths, fetched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        server_lock.acquire(paths),
        publish(paths, own_record(Address("127.0.0.1", 1, REPO, "cpu"))),
    ):
        assert run(["pull", REPO]) == 1
    assert f"pensieve stop && pensieve pull {REPO}" in capsys.readouterr().err


def test_a_folder_is_neither_fetched_nor_removed(
    paths: Paths, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("pull", "rm"):
        assert run([command, str(tiny)]) == 2
        assert "your own folder" in capsys.readouterr().err
    assert (tiny / "config.json").exists()


# rm


def test_rm_without_a_terminal_names_the_flag_and_removes_nothing(
    paths: Paths, fetched: Path, tmp_path: Path
) -> None:
    done = pensieve("rm", REPO, home=tmp_path)
    assert done.returncode == 2
    assert f"pensieve rm {REPO} -y".encode() in done.stderr
    assert done.stdout == b""
    assert fetched.exists()
    assert pensieve("rm", REPO, "-y", home=tmp_path).returncode == 0
    assert not fetched.exists()


@pytest.mark.parametrize(
    ("answer", "is_removed"), [("y", True), ("Yes", True), ("n", False), ("", False)]
)
def test_rm_asks_at_a_terminal(
    fetched: Path, answer: str, is_removed: bool, tmp_path: Path
) -> None:
    terminal = at_terminal("rm", REPO, home=tmp_path)
    terminal.expect_exact("[y/N] ")
    terminal.sendline(answer)
    terminal.expect(pexpect.EOF)
    assert ("is removed" in terminal.before) is is_removed
    assert fetched.exists() is not is_removed
    terminal.close()
    assert terminal.exitstatus == 0


def test_rm_refuses_a_served_model_and_accepts_a_missing_one(
    paths: Paths, fetched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        server_lock.acquire(paths),
        publish(paths, own_record(Address("127.0.0.1", 1, REPO, "cpu"))),
    ):
        assert run(["rm", REPO, "-y"]) == 1
    assert f"pensieve stop && pensieve rm {REPO}" in capsys.readouterr().err
    assert fetched.exists()
    assert run(["rm", "qwen3-4b", "--json"]) == 0
    assert report(capsys) == {"name": "qwen3-4b", "is_removed": False, "bytes": 0}


# use


def test_use_writes_the_configuration_of_the_next_start(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["use", "qwen3-4b"]) == 0
    out, err = capsys.readouterr()
    assert out == "qwen3-4b is the default model from the next start.\n"
    assert "pensieve pull qwen3-4b" in err
    assert resolve().model == "qwen3-4b"
    assert resolve().origins["model"] == str(paths.config_file)
    for argument in AUTO_NAMES:
        assert run(["use", argument, "--json"]) == 0
        assert report(capsys)["model"] in {model.name for model in CATALOG}
        assert resolve().model == argument


def test_use_names_the_running_model_and_an_overriding_variable(
    paths: Paths,
    fetched: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PENSIEVE_MODEL", "smollm2-135m")
    with (
        server_lock.acquire(paths),
        publish(paths, own_record(Address("127.0.0.1", 1, "tiny", "cpu"))),
    ):
        assert run(["use", REPO]) == 0
    err = capsys.readouterr().err
    assert "unset PENSIEVE_MODEL" in err
    assert err.endswith("Switch now:\n  pensieve restart\n")
    assert "pull" not in err


def test_use_names_a_restart_that_overrides_the_running_servers_flag(
    paths: Paths, fetched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = own_record(Address("127.0.0.1", 1, "tiny", "cpu"), flags={"model": "tiny"})
    with server_lock.acquire(paths), publish(paths, record):
        assert run(["use", REPO]) == 0
    assert capsys.readouterr().err.endswith(f"Switch now:\n  pensieve restart --model {REPO}\n")


def test_use_stores_a_folder_by_full_path_and_refuses_an_invalid_one(
    paths: Paths, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tiny.parent)
    assert run(["use", f"./{tiny.name}"]) == 0
    assert resolve().model == str(tiny)
    assert run(["use", "qwen"]) == 69
    assert resolve().model == str(tiny)
    assert "pensieve models" in capsys.readouterr().err
