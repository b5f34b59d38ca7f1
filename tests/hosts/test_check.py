"""What `pensieve hosts check` says, with programs in the place of ssh."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from pensieve import __version__
from pensieve.errors import HostError
from pensieve.hosts.check import HostReport, examine
from pensieve.hosts.greeting import Answer, Question, answer_line
from pensieve.hosts.model_identity import difference, identity_of
from pensieve.hosts.problems import problem_of
from pensieve.hosts.ssh import MAX_LINE_CHARS, OPTIONS, command_line

QUESTION = Question(__version__, "check", "phi-3-mini", {"config.json": "ab"})
USABLE = Answer(__version__, "macOS", "Apple M3 Ultra", 96 << 30, "gpu", 61_000)


def examined(folder: Path, shell: str, timeout_s: float = 30.0) -> HostReport:
    """Examine a machine with this script in the place of ssh."""
    ssh = folder / "ssh"
    ssh.write_text(f"#!/bin/sh\n{shell}\n")
    ssh.chmod(0o755)
    (report,) = examine(["studio.local"], [str(ssh)], QUESTION, timeout_s)
    return report


def answering(answer: Answer) -> str:
    line = shlex.quote(answer_line(answer).decode().rstrip())
    return f"echo Welcome; read question; echo {line}; exec cat"


@pytest.mark.parametrize("model", ["phi-3-mini", "/Users/me/my model", '/it\'s "one"/$HOME'])
def test_command_for_the_other_machine_runs_in_its_login_shell(model: str) -> None:
    question = replace(QUESTION, model=model)
    _, fix = problem_of("studio.local", question, Answer(__version__, problem="memory")) or ("", "")
    ssh, host, there = shlex.split(fix)
    assert (ssh, host) == ("ssh", "studio.local")
    shell, option, command = shlex.split(there)
    assert (shell, option) == ("$SHELL", "-lc")
    assert shlex.split(command) == ["pensieve", "plan", model]


def test_host_is_an_argument_and_never_an_option() -> None:
    line = command_line(["ssh", "-p", "22"], "-oProxyCommand=evil", ["pull", "a b"])
    assert line[: len(OPTIONS) + 5] == ["ssh", "-p", "22", *OPTIONS, "--", "-oProxyCommand=evil"]
    assert shlex.split(line[-1])[2].endswith(" pensieve pull 'a b'; exit $?")


def test_usable_machine_is_described_in_a_line(tmp_path: Path) -> None:
    report = examined(tmp_path, answering(USABLE))
    assert report.line.startswith(
        f"studio.local: pensieve {__version__}, Apple M3 Ultra, 96 GiB of memory,"
        " phi-3-mini is there, about 61,000 tokens, answers in "
    )
    assert report.as_json["is_usable"]
    report.require()


@pytest.mark.parametrize(
    ("shell", "problem", "fix"),
    [
        (
            "echo 'ssh: Could not resolve hostname studio.local: unknown' >&2; exit 255",
            "There is no machine studio.local in this network.",
            "ssh studio.local true",
        ),
        (
            "echo 'ssh: connect to host studio.local port 22: Connection refused' >&2; exit 255",
            "studio.local is not reached: ssh: connect to host studio.local port 22: Connection",
            "Remote Login",
        ),
        (
            "echo 'me@studio.local: Permission denied (publickey).' >&2; exit 255",
            "studio.local asks for a password",
            "ssh-copy-id studio.local",
        ),
        (
            "echo 'Host key verification failed.' >&2; exit 255",
            "studio.local is not known yet to ssh.",
            "ssh studio.local true",
        ),
        (
            "echo '@ REMOTE HOST IDENTIFICATION HAS CHANGED! @' >&2;"
            " echo 'Host key verification failed.' >&2; exit 255",
            "studio.local has another key than before",
            "ssh-keygen -R studio.local",
        ),
        (
            "echo '/bin/sh: 1: exec: pensieve: not found' >&2; exit 127",
            "pensieve is not installed on studio.local",
            "brew install pensieve",
        ),
        (
            "echo 'Error: Unknown command \"remote-worker\".' >&2; exit 2",
            "studio.local has a pensieve that is too old",
            "brew upgrade pensieve",
        ),
        ("echo oh no >&2; exit 3", "ended without an answer (exit code 3): oh no", "doctor"),
        (
            answering(Answer("0.0.1", problem="version", detail="0.0.1")),
            f"studio.local has pensieve 0.0.1, this machine {__version__}.",
            "brew upgrade pensieve",
        ),
        (
            answering(Answer(__version__, problem="device", detail="An Intel Mac.")),
            "studio.local cannot run models: An Intel Mac.",
            "pensieve doctor",
        ),
        (
            answering(Answer(__version__, problem="model")),
            "phi-3-mini is not on studio.local.",
            "pensieve pull phi-3-mini --hosts studio.local",
        ),
        (
            answering(Answer(__version__, problem="files", detail="config.json differs")),
            "phi-3-mini on studio.local is not the one here: config.json differs.",
            "pensieve pull phi-3-mini --hosts studio.local",
        ),
        (
            answering(Answer(__version__, problem="memory", detail="it needs 40 GB.")),
            "phi-3-mini does not fit the memory of studio.local: it needs 40 GB.",
            "pensieve plan phi-3-mini",
        ),
    ],
)
def test_each_problem_has_its_words_and_its_fix(
    tmp_path: Path, shell: str, problem: str, fix: str
) -> None:
    report = examined(tmp_path, shell)
    assert problem in report.line
    assert fix in report.fix
    with pytest.raises(HostError, match="studio"):
        report.require()


def test_ssh_that_hangs_is_ended_and_named(tmp_path: Path) -> None:
    report = examined(tmp_path, "echo Welcome; exec sleep 600", timeout_s=0.2)
    assert report.line == "studio.local did not answer in time."
    assert report.fix == "ssh studio.local '$SHELL -lc \"pensieve version\"'"


def test_what_ssh_prints_without_an_end_is_cut(tmp_path: Path) -> None:
    shell = "head -c 100000 /dev/zero | tr '\\0' x >&2; exit 255"
    assert len(examined(tmp_path, shell).line) < 2 * MAX_LINE_CHARS


def test_missing_ssh_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        examine(["studio.local"], [str(tmp_path / "none")], QUESTION)


def test_models_differ_by_sizes_of_weights_and_content_of_small_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"1234")
    before = identity_of(tmp_path)
    assert difference(before, before) == ""
    (tmp_path / "config.json").write_text("[]")
    assert difference(before, identity_of(tmp_path)) == "config.json differs"
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"12345")
    assert difference(before, identity_of(tmp_path)) == "model.safetensors differs"
    (tmp_path / "model.safetensors").unlink()
    assert difference(before, identity_of(tmp_path)) == "model.safetensors is missing"
