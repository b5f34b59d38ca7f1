"""One real server for all tests: `pensieve start` with the embedded model on the CPU."""

from collections.abc import Iterator

import pytest

from tests.e2e.installation import Installation
from tests.support.ports import free_port


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    installation = Installation(tmp_path_factory.mktemp("pensieve home"), free_port())
    installation.start()
    yield installation
    installation.pensieve("stop")
