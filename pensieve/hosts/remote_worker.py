"""Runs on the other machine, started by ssh: answers the question, then becomes the worker.

Standard input and output are the connection. Everything else that is printed goes to standard
error, which ssh brings to the server's log.
"""

import json
import os
import select
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import NoReturn

from pensieve import __version__
from pensieve.engine.client.launch import GB, resource_limits_of, worker_variables
from pensieve.errors import ModelError, PensieveError
from pensieve.hosts.backends import own_backends
from pensieve.hosts.greeting import (
    MAX_LINE_BYTES,
    Answer,
    Question,
    answer_line,
    question_of,
)
from pensieve.hosts.model_identity import difference, identity_of
from pensieve.isolation import python
from pensieve.machine import Machine, choose_device, inspect
from pensieve.models.catalog.expected_model import fit_on_mac
from pensieve.models.catalog.find import find
from pensieve.models.catalog.memory_fit import FitEstimate, memory_limit_here
from pensieve.models.folder.snapshot import folder_of, is_present
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import Device, Settings, child_environment

WORKER = ("-m", "pensieve.hosts.worker_process")
# Until the question arrives: ssh has just connected.
QUESTION_S = 20.0
# Until the other machines have answered: each has `greeting.TIMEOUT_S`.
RANK_S = 300.0


def remote_worker() -> int:
    """Answer on standard output; become the worker, or echo lines for a check."""
    into, out = _own_standard_streams()
    if not (line := _read_line(into)):
        os.write(2, b"pensieve remote-worker is started by another machine's pensieve, by ssh.\n")
        return 2
    try:
        question = question_of(line)
    except ValueError:
        os.write(out, answer_line(Answer(__version__, problem="version", detail=__version__)))
        return 1
    answer, load = examine(question)
    os.write(out, answer_line(answer))
    if answer.problem:
        return 1
    if question.role == "check":
        return _echo(into, out)
    if question.role == "worker":
        _become_worker(into, out, load)
    # Sent once all other ranks have answered as well.
    if place := _read_line(into, RANK_S):
        _become_worker(into, out, load, place.decode())
    return 1


def examine(
    question: Question,
    inspect: Callable[[], Machine] = inspect,
    resolve: Callable[[], Settings] = settings_module.resolve,
) -> tuple[Answer, dict[str, object]]:
    """Return the answer, and what replaces parts of the `Load` frame: this machine's folders."""
    machine = inspect()
    facts = Answer(
        __version__,
        system=machine.describe(),
        chip=machine.chip,
        memory_bytes=machine.memory_bytes,
    )
    if question.version != __version__:
        return replace(facts, problem="version", detail=__version__), {}
    try:
        # Not one of the workers that a server of that machine would start.
        settings = replace(resolve(), workers=1)
        device = choose_device(settings.device, machine)
    except PensieveError as error:
        return replace(facts, problem="device", detail=error.message), {}
    facts = replace(facts, device=device)
    if not question.model:
        return facts, {}
    return _with_model(question, facts, settings, machine)


def _with_model(
    question: Question, facts: Answer, settings: Settings, machine: Machine
) -> tuple[Answer, dict[str, object]]:
    try:
        source = find(question.model)
    except ModelError as error:
        return replace(facts, problem="model", detail=error.message), {}
    if not is_present(source, settings.paths.models):
        return replace(facts, problem="model"), {}
    folder = folder_of(source, settings.paths.models)
    if question.files and (differing := difference(question.files, identity_of(folder))):
        return replace(facts, problem="files", detail=differing), {}
    fit = _fit(folder, settings, machine, question.ranks)
    if question.ranks > 1:
        facts = replace(facts, backends=own_backends())
    if fit and not fit.context_tokens:
        needed, limit = fit.needs_bytes, memory_limit_here(machine, settings).limit_bytes
        detail = f"it needs {needed / GB:.1f} GB, and the limit there is {limit / GB:.1f} GB."
        return replace(facts, problem="memory", detail=detail), {}
    facts = replace(facts, context_tokens=fit and fit.context_tokens)
    return facts, _load_changes(folder, settings, facts.device)


def _fit(folder: Path, settings: Settings, machine: Machine, ranks: int) -> FitEstimate | None:
    """Return the fit of the model, or of the part of it that this machine would have."""
    if ranks == 1:
        return fit_on_mac(folder, settings, machine)
    from pensieve.models.catalog.shared_fit import share_on_mac

    return share_on_mac(folder, settings, machine, ranks)


def _load_changes(folder: Path, settings: Settings, device: str) -> dict[str, object]:
    return {
        "model_folder": str(folder),
        "prefix_folder": str(settings.paths.prefixes),
        "device": device,
        "limits": asdict(resource_limits_of(settings)),
    }


def _own_standard_streams() -> tuple[int, int]:
    """Move the connection to descriptors that no library prints to."""
    into, out = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return into, out


def _read_line(into: int, timeout_s: float = QUESTION_S) -> bytes:
    """Read no byte after the line's end, which would be a frame's. Empty: none came."""
    line = bytearray()
    while not line.endswith(b"\n"):
        readable, _, _ = select.select([into], [], [], timeout_s)
        if not readable or not (byte := os.read(into, 1)) or len(line) > MAX_LINE_BYTES:
            return b""
        line += byte
    return bytes(line)


def _echo(into: int, out: int) -> int:
    """Send back what arrives, so that the other machine can measure the link."""
    while content := os.read(into, 1 << 16):
        os.write(out, content)
    return 0


def _become_worker(into: int, out: int, load: dict[str, object], *place: str) -> NoReturn:
    for descriptor in (into, out):
        os.set_inheritable(descriptor, True)  # noqa: FBT003
    arguments = python(*WORKER, str(into), str(out), json.dumps(load), *place)
    device: Device = "cpu" if load["device"] == "cpu" else "gpu"
    os.execve(arguments[0], arguments, child_environment(worker_variables(device)))  # noqa: S606
