"""What keeps a model from running on another machine, in words, and the command that fixes it."""

import shlex
from collections.abc import Sequence
from typing import assert_never

from pensieve.hosts.greeting import Answer, Question
from pensieve.hosts.ssh import SshFailedError


def _on(host: str, command: str) -> str:
    """Return the command that runs another one there, in a login shell: only that has Homebrew's
    folder in its PATH.
    """
    there = f'$SHELL -lc "{command}"'
    if any(sign in command for sign in "\"'$`\\"):
        there = f"$SHELL -lc {shlex.quote(command)}"
    return f"ssh {host} {shlex.quote(there)}"


def problem_of(host: str, question: Question, answer: Answer) -> tuple[str, str] | None:
    """Return the problem and its fix for people; None if there is none."""
    match answer.problem:
        case None:
            return None
        case "version":
            return (
                f"{host} has pensieve {answer.version}, this machine {question.version}.",
                _on(host, "brew upgrade pensieve"),
            )
        case "device":
            return f"{host} cannot run models: {answer.detail}", _on(host, "pensieve doctor")
        case "model":
            detail = f" {answer.detail}" if answer.detail else ""
            return (
                f"{question.model} is not on {host}.{detail}",
                _fetch(question.model, host),
            )
        case "files":
            return (
                f"{question.model} on {host} is not the one here: {answer.detail}.",
                _fetch(question.model, host),
            )
        case "memory":
            return (
                f"{question.model} does not fit the memory of {host}: {answer.detail}",
                _on(host, f"pensieve plan {shlex.quote(question.model)}"),
            )
        case _:
            assert_never(answer.problem)


def _fetch(model: str, host: str) -> str:
    """Return the command that brings the model to the other machine."""
    if model.startswith("/"):
        folder = shlex.quote(f"{model}/")
        return f"rsync -a {folder} {host}:{folder}"
    return f"pensieve pull {shlex.quote(model)} --hosts {host}"


def failure_of(host: str, failure: SshFailedError) -> tuple[str, str]:
    """Return why no answer came and what fixes that, from what ssh printed."""
    text = "\n".join(failure.lines)
    last = failure.lines[-1] if failure.lines else str(failure)
    for phrase, problem, fix in _BY_PHRASE:
        if phrase in text:
            return problem.format(host=host, last=last), fix.format(host=host)
    match failure.exit_code:
        case 127:
            return (
                f"pensieve is not installed on {host}, or not where it is looked for.",
                _on(host, "brew install pensieve"),
            )
        case 255:
            return (
                f"{host} is not reached: {last}",
                f"ssh {host} true   # on a Mac, first System Settings > General > Sharing"
                " > Remote Login",
            )
        case None:
            return f"{host} did not answer in time.", _on(host, "pensieve version")
        case code:
            return (
                f"pensieve on {host} ended without an answer (exit code {code}): {last}",
                _on(host, "pensieve doctor"),
            )


_BY_PHRASE: Sequence[tuple[str, str, str]] = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "{host} has another key than before: it was set up again, or another machine answers.",
        "ssh-keygen -R {host} && ssh {host} true   # if you know why",
    ),
    (
        "Host key verification failed",
        "{host} is not known yet to ssh.",
        "ssh {host} true",
    ),
    (
        "Permission denied",
        "{host} asks for a password, which pensieve cannot type. It needs your ssh key there.",
        "ssh-copy-id {host}",
    ),
    (
        "Could not resolve hostname",
        "There is no machine {host} in this network.",
        "ssh {host} true   # a Mac's name is in System Settings > General > Sharing",
    ),
    (
        'Unknown command "remote-worker"',
        "{host} has a pensieve that is too old to work for another machine.",
        _on("{host}", "brew upgrade pensieve"),
    ),
)
