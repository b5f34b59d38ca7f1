"""`pensieve bench`: measures the running server, or one that it starts, and prints a table."""

import json
import os
import random
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pensieve.atomic_files import write_atomically
from pensieve.bench import conditions as facts
from pensieve.bench.http_server import HttpServed
from pensieve.bench.own_server import OwnServer
from pensieve.bench.prompts import Prompts
from pensieve.bench.result import MAX_BYTES, Result, loads
from pensieve.bench.run import OWN_SERVER, Outcome, measure_own, measure_running
from pensieve.bench.session import Session
from pensieve.bench.tables import as_text, comparison, differences
from pensieve.cli.client.connection import Server
from pensieve.cli.client.server_identity import identify
from pensieve.cli.lifecycle.launching import default_dependencies, fetch_model
from pensieve.cli.lifecycle.start_options import Allowed, ComputeDevice, Model, whole_number
from pensieve.cli.ui import output
from pensieve.cli.ui.progress import counted, in_bytes
from pensieve.daemon.health_client import Health, ask, require_key
from pensieve.daemon.processes import memory_of
from pensieve.daemon.server_record import ServerRecord, require
from pensieve.errors import MachineError, NotWritableError, ServerUnavailableError, UsageError
from pensieve.machine import Machine, choose_device, inspect
from pensieve.models.catalog.memory_fit import estimate_fit, memory_limit_here
from pensieve.models.folder.config_shape import shape_of
from pensieve.settings import resolve as settings_module
from pensieve.settings.resolve import Flags, Settings

MIN_TIME_S, MAX_TIME_S = 10, 3600
TIME = Allowed(
    f"a number of seconds from {MIN_TIME_S} to {MAX_TIME_S}, such as 180",
    range(MIN_TIME_S, MAX_TIME_S + 1).__contains__,
)

Time = Annotated[
    int, Parameter(name="--time", metavar="SECONDS", converter=whole_number, validator=TIME)
]
File = Annotated[Path | None, Parameter(metavar="FILE")]
Show = Callable[[str], None]
Measure = Callable[[Session, Show], Result]


def bench(  # noqa: PLR0913 -- each is an option
    *,
    time_: Time = 60,
    own_server: bool = False,
    model: Model = None,
    device: ComputeDevice = None,
    save: File = None,
    compare: File = None,
    json_: bool = False,
) -> int:
    """Measure the speed of this machine with the served model.

    For example:
      pensieve bench
      pensieve bench --save before.json
      pensieve bench --compare before.json   # after an update, or on another Mac

    Seconds to the first token and tokens per second, for prompts of several
    lengths, new and sent again, for one answer and four at once.

    Measures the running server if there is one and it is idle. Otherwise it starts
    one of its own, with another port and folder, and restarts it once: that also
    measures prompts read from disk, and answers with and without drafts.

    Parameters
    ----------
    time_
        Measure for about this many seconds; the default is 60. Loading the model
        comes before. What does not fit is left out, and named.
    own_server
        Start a server even if one is running. Both models must fit into memory.
    model
        Measure this model, with a server of its own.
    device
        Compute on this device, with a server of its own.
    save
        Write the run to this file, for --compare.
    compare
        Compare with the run in this file.
    json_
        Print one JSON object instead.
    """
    earlier = read_saved(compare) if compare else None
    if save:
        check_writable(save)
    result = run_bench(Flags(model=model, device=device), time_, is_own=own_server)
    if save:
        write_saved(save, result)
    print_result(result, earlier, is_json=json_)
    return 0


def run_bench(flags: Flags, time_s: int, *, is_own: bool) -> Result:
    """Measure the running server, or one of its own if there is none or a flag needs it."""
    settings = settings_module.resolve(flags)
    record = require(settings.paths)
    measure = (
        prepare_own(settings, record)
        if is_own or flags.given() or record is None
        else prepare_running(settings, record)
    )
    with progress_of(time_s) as show:
        return measure(Session(time_s, Prompts(random.Random()), show), show)  # noqa: S311


def prepare_running(settings: Settings, record: ServerRecord) -> Measure:
    around = facts.surroundings(inspect())
    health = identify(Server(record.direct_url, settings.api_key, record.pid, record.trust)).health
    check_ready(health)
    check_idle(health)
    require_key(record.direct_url, record.trust, settings.api_key)

    def measure(session: Session, _show: Show) -> Result:
        outcome = measure_running(HttpServed(record, settings.api_key), session)
        model = facts.model_name(outcome.health.model, outcome.health.repo)
        measured = facts.conditions(outcome.health, model, around) | {"server": "running before"}
        return result_of(session, outcome, measured, around)

    return measure


def prepare_own(settings: Settings, running: ServerRecord | None) -> Measure:
    """Download a missing model. Raises `MachineError` if a second server does not fit."""
    machine = inspect()
    around = facts.surroundings(machine)
    device = choose_device(settings.device, machine, command=OWN_SERVER)
    folder = fetch_model(settings, default_dependencies(), "Nothing was measured.")
    if running:
        check_idle(ask(running))
        check_memory(settings, folder.folder, machine, memory_of(running.pid))

    def measure(session: Session, show: Show) -> Result:
        own = OwnServer(settings, folder.folder, device, settings.paths.bench, show=show)
        with own.folder():
            outcome = measure_own(own.start, session)
        model = facts.model_name(folder.name, folder.repo)
        measured = facts.conditions(outcome.health, model, around) | {"server": "its own"}
        return result_of(session, outcome, measured, around)

    return measure


def result_of(
    session: Session, outcome: Outcome, conditions: dict[str, str], around: facts.Surroundings
) -> Result:
    shared = ["other clients used the server meanwhile"] if session.was_shared else []
    return Result(
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        conditions={
            **conditions,
            "drafts": outcome.drafts,
            "load": f"{around.load:.1f} on {around.cores} cores before",
            "time": f"{session.limit_s:.0f} s",
        },
        figures=session.figures,
        left_out=outcome.left_out,
        warnings=(*around.warnings(), *shared),
    )


def check_ready(health: Health) -> None:
    if not health.is_well:
        raise ServerUnavailableError(
            f"The server cannot be measured: it is {health.status}. {health.detail}".rstrip(),
            hint="Measure when it is ready:\n  pensieve status",
        )


def check_idle(health: Health) -> None:
    if health.in_flight:
        raise ServerUnavailableError(
            f"The server is answering {counted(health.in_flight, 'request')}. They would slow the"
            " measuring down, and it them.",
            hint="Measure when it is idle:\n  pensieve status",
        )


def check_memory(settings: Settings, folder: Path, machine: Machine, used_bytes: int) -> None:
    """Raise `MachineError` if a second model probably does not fit next to the running server."""
    limit = memory_limit_here(machine, settings)
    needs_bytes = estimate_fit(shape_of(folder), limit).needs_bytes
    if used_bytes + needs_bytes <= limit.limit_bytes:
        return
    raise MachineError(
        f"A second server may not fit into memory: the model needs {in_bytes(needs_bytes)}, the"
        f" running server uses {in_bytes(used_bytes)} of the {in_bytes(limit.limit_bytes)} that"
        " pensieve may use.",
        hint="Stop it for the measuring, or measure it as it runs:\n"
        f"  pensieve stop && {OWN_SERVER}\n  pensieve bench",
    )


def read_saved(file: Path) -> Result:
    try:
        with file.open("rb") as opened:
            return loads(opened.read(MAX_BYTES + 1))
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise UsageError(
            f"{file} is not a saved run: {error}.", hint="Save one:\n  pensieve bench --save FILE"
        ) from error


def check_writable(file: Path) -> None:
    """Raise `NotWritableError` before the measuring rather than after it."""
    folder = file.absolute().parent
    if file.is_dir():
        reason = "it is a folder"
    elif not folder.is_dir():
        reason = f"there is no folder {folder}"
    elif not os.access(folder, os.W_OK):
        reason = "its folder belongs to another user"
    else:
        return
    raise NotWritableError(f"{file} cannot be written: {reason}.")


def write_saved(file: Path, result: Result) -> None:
    try:
        write_atomically(file, f"{result.dumps()}\n".encode())
    except OSError as error:
        raise NotWritableError(f"{file} cannot be written: {error.strerror}.") from error


def print_result(result: Result, earlier: Result | None, *, is_json: bool) -> None:
    if is_json:
        value = result.as_json()
        if earlier:
            value |= {
                "compared_with": earlier.as_json(),
                "differences": differences(earlier, result),
            }
        output.data(json.dumps(value, indent=2, ensure_ascii=False))
        return
    output.data(as_text(result))
    if earlier:
        output.data(f"\n{comparison(earlier, result)}")


@contextmanager
def progress_of(
    limit_s: float, clock: Callable[[], float] = time.monotonic
) -> Generator[Callable[[str], None]]:
    """Yield what shows the present step: on a terminal with the time, else once."""
    if not output.can_rewrite_line():
        output.hint(f"Measuring for about {limit_s:.0f} s, after loading the model ...")
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("starting")
        yield lambda step: shown.update(task, description=f"Measuring {limit_s:.0f} s: {step}")
