"""A fixture that connects OpenAI's Python client to a test server."""

from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from pensieve.dialects.dialect import Dialect
from pensieve.dialects.families import plain
from tests.clients.serving import serving
from tests.server.serving import KEY
from tests.support.fakes import ScriptedEngine

Connect = Callable[..., OpenAI]


@pytest.fixture
def connect(tmp_path: Path) -> Generator[Connect]:
    """Start a server for an engine and connect a client that validates answers strictly."""
    with ExitStack() as stack:

        def connect(
            engine: ScriptedEngine,
            *,
            context_tokens: int = 4096,
            name: str = "m",
            dialect: Dialect = plain.DIALECT,
            path: str = "/v1",
            **options: Any,
        ) -> OpenAI:
            model = {"context_tokens": context_tokens, "name": name, "dialect": dialect}
            url = stack.enter_context(serving(engine, tmp_path, **model))
            defaults = {"api_key": KEY, "max_retries": 0, "_strict_response_validation": True}
            return stack.enter_context(OpenAI(base_url=url + path, **defaults | options))

        yield connect
