"""`pensieve doctor` beside a real server with a real model."""

import json
import tarfile
from pathlib import Path

from tests.e2e.conftest import Journey


def test_a_running_server_passes_with_one_real_token(server: Journey, tmp_path: Path) -> None:
    report = tmp_path / "report.tar.gz"
    done = server.pensieve("doctor", "--verify", "--json", "--bundle", str(report), check=False)
    told = json.loads(done.stdout)
    by_topic = {finding["topic"]: finding for finding in told["findings"]}
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
