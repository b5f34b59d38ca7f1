"""Opens the engine worker on another machine; the engine client calls it."""

import socket
from collections.abc import Awaitable, Callable, Sequence

from anyio.abc import Process

from pensieve import __version__
from pensieve.engine.client.launch import WorkerSpec, end_worker
from pensieve.errors import HostError
from pensieve.hosts.greeting import Question
from pensieve.hosts.model_identity import identity_of
from pensieve.hosts.problems import failure_of, problem_of
from pensieve.hosts.ssh import SshFailedError, connect


def opener(
    ssh: Sequence[str], host: str, model: str
) -> Callable[[WorkerSpec], Awaitable[tuple[Process, socket.socket]]]:
    """Return a function that starts a worker for `model` on `host`.

    It raises OSError if ssh is not installed, and `HostError`.
    """

    async def open_there(spec: WorkerSpec) -> tuple[Process, socket.socket]:
        question = Question(__version__, "worker", model, identity_of(spec.model_folder))
        try:
            process, connection, answer = await connect(ssh, host, question)
        except SshFailedError as failure:
            problem, fix = failure_of(host, failure)
            raise HostError(problem, hint=f"Fix it:\n  {fix}") from failure
        if problem := problem_of(host, question, answer):
            connection.close()
            await end_worker(process)
            raise HostError(problem[0], hint=f"Fix it:\n  {problem[1]}")
        return process, connection

    return open_there
