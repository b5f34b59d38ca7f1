"""Run schemathesis with all its checks against the server's own OpenAPI document.

An ordinary run takes seconds. PENSIEVE_FUZZ_EXAMPLES=10000 sends about as many requests and takes
minutes.
"""

import sys
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from pensieve.paths import under_home
from tests.fuzz.examples import EXAMPLES
from tests.server.serving import KEY, SETTINGS, app_of, listening
from tests.support.fakes import ScriptedEngine, says

pytestmark = pytest.mark.anyio
CONFIG = Path(__file__).with_name("schemathesis.toml")
OPERATIONS = 27


async def test_the_server_conforms_to_its_openapi_document(tmp_path: Path) -> None:
    settings = replace(SETTINGS, paths=under_home(tmp_path / "home"))
    app = app_of(ScriptedEngine([says("Hello!")]), settings=settings)
    phases = "examples,coverage,fuzzing,stateful" if EXAMPLES else "fuzzing,stateful"
    async with listening(app) as url:
        done = await anyio.run_process(
            [
                *[sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG)],
                *["run", f"{url}/openapi.json", "--header", f"x-api-key: {KEY}"],
                *["--checks", "all", "--max-response-time", "2", "--continue-on-failure"],
                *["--phases", phases, "--max-examples", str(EXAMPLES // OPERATIONS or 4)],
                *["--no-color", "--warnings", "off"],
            ],
            check=False,
            cwd=tmp_path,
        )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
