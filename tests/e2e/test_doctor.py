"""`pensieve doctor` with a real server and a real model."""

import json
import os
import tarfile
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

from pensieve.daemon.processes import command_of
from tests.e2e.installation import KEY, Installation

COUNT = int(os.environ.get("PENSIEVE_CANARIES", "20"))
CANARY = "canary-7f3a9c"
KEYS = [KEY, CANARY]
BODIES = [
    [{"role": "user", "content": CANARY}],
    [{"role": CANARY, "content": "x"}],
    CANARY,
    [{"role": "user", "content": [{"type": CANARY}]}],
]


def processes() -> list[Path]:
    """Return the processes of this machine; none without /proc."""
    return list(Path("/proc").glob("[0-9]*"))


def test_a_running_server_passes_all_checks_with_one_real_token(
    server: Installation, tmp_path: Path
) -> None:
    report = tmp_path / "report.tar.gz"
    done = server.pensieve("doctor", "--verify", "--json", "--bundle", str(report), check=False)
    report_json = json.loads(done.stdout)
    by_topic = {finding["topic"]: finding for finding in report_json["findings"]}
    for topic in ("machine", "mlx", "memory", "model", "port", "server", "probe", "log", "files"):
        assert by_topic[topic]["level"] == "ok", by_topic[topic]
    assert by_topic["probe"]["text"].startswith("one token in")
    assert "on this server" in by_topic["context"]["text"]
    with tarfile.open(report) as archive:
        log = archive.extractfile("pensieve-report/server.log")
        assert log
        content = log.read().decode()
    assert "the model is loaded" in content
    assert str(server.home) not in content


def test_secrets_of_clients_are_in_no_log_report_or_command_line(
    server: Installation, tmp_path: Path
) -> None:
    """Sends twenty requests, or PENSIEVE_CANARIES of them."""
    for number in range(COUNT):
        headers = {"content-type": "application/json", "x-api-key": KEYS[number % 2]}
        body = json.dumps({"model": "m", "max_tokens": number % 3, "messages": BODIES[number % 4]})
        connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
        with closing(connection):
            connection.request("POST", f"/v1/messages?key={CANARY}", body, headers)
            assert connection.getresponse().status in {200, 400, 401}
    report = tmp_path / "report.tar.gz"
    server.pensieve("doctor", "--bundle", str(report), check=False)
    log = (server.home / "logs" / "server.log").read_bytes()
    assert log.count(b"POST /v1/messages") >= COUNT
    with tarfile.open(report) as archive:
        parts = [archive.extractfile(each).read() for each in archive.getmembers()]
    commands = [b" ".join(map(os.fsencode, command_of(int(p.name)))) for p in processes()]
    for place in (log, report.read_bytes(), *parts, *commands):
        assert CANARY.encode() not in place
    assert b"POST /v1/messages" in b"".join(parts)
