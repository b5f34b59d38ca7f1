"""Ids, cursors and queries of arbitrary text are found, empty or refused in the envelope."""

import base64
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import quote

import anyio.from_thread
import httpx
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pensieve.paths import under_home
from tests.fuzz.examples import max_examples
from tests.fuzz.mutations import ODD_NUMBERS, ODD_TEXTS
from tests.fuzz.test_bodies import HEADERS, assert_refused
from tests.server.serving import SETTINGS, app_of
from tests.support.fakes import ScriptedEngine, says

NAMES = ["limit", "page", "ids[]", "after_id", "before_id", "lifecycle[]", "lifecycle", "x", ""]
texts = st.one_of(
    st.sampled_from([*ODD_TEXTS, *map(str, ODD_NUMBERS), "[" * 5000, "9" * 5000]),
    st.sampled_from(["page_", "page_1.5_file_a", "file_01", "msgbatch_01", "%", "%ff", "٣"]),
    st.text(max_size=20),
)
# Plain, in base64, and with the prefixes of real ids.
ids = st.one_of(
    texts,
    texts.map(lambda text: base64.urlsafe_b64encode(text.encode(errors="replace")).decode()),
    texts.map(lambda text: f"page_{text}"),
    texts.map(lambda text: f"file_{text}"),
)
escaped = ids.map(lambda text: quote(text.encode(errors="surrogatepass"), safe=""))
queries = st.lists(st.tuples(st.sampled_from(NAMES), escaped), max_size=4).map(
    lambda pairs: "&".join(f"{name}={value}" for name, value in pairs)
)


@pytest.fixture(scope="module")
def send(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    home = under_home(tmp_path_factory.mktemp("home"))
    app = app_of(ScriptedEngine([says("Hello!")]), settings=replace(SETTINGS, paths=home))
    transport = httpx.ASGITransport(app)
    client = httpx.AsyncClient(transport=transport, base_url="http://localhost:7777")

    async def request(method: str, target: str) -> httpx.Response:
        headers = HEADERS | {"anthropic-version": "2023-06-01"}
        return await client.request(method, target, headers=headers)

    with anyio.from_thread.start_blocking_portal() as portal:
        yield lambda method, target: portal.call(request, method, target)


@pytest.mark.parametrize("path", ["/v1/files", "/v1/messages/batches", "/v1/models"])
@max_examples(150)
@given(query=queries)
def test_an_arbitrary_query_is_answered_or_refused(path: str, query: str, send) -> None:
    response = send("GET", f"{path}?{query}")
    if response.status_code != 200:
        assert_refused(response)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/files/{}"),
        ("GET", "/v1/files/{}/content"),
        ("DELETE", "/v1/files/{}"),
        ("GET", "/v1/messages/batches/{}"),
        ("GET", "/v1/messages/batches/{}/results"),
        ("POST", "/v1/messages/batches/{}/cancel"),
        ("GET", "/v1/models/{}"),
    ],
)
@max_examples(60)
@given(item_id=escaped.filter(bool))
def test_an_arbitrary_id_is_not_found(method: str, path: str, item_id: str, send) -> None:
    response = send(method, path.format(item_id))
    assume(response.status_code != 405)  # the id made another route of the path
    assert response.status_code == 404
    assert_refused(response)
