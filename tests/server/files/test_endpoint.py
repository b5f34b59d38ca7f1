"""`/v1/files`: text documents of clients."""

import base64
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pensieve.paths import under_home
from tests.server.serving import KEY, SETTINGS, app_of, in_memory
from tests.support.fakes import ScriptedEngine, says

pytestmark = pytest.mark.anyio
# Page tokens that decoders fail on: depth, size, numbers, other alphabets.
ODD_PAGES = [
    "page=page_" + quote(base64.urlsafe_b64encode(content.encode()).decode())
    for content in [
        "[" * 9000,
        "9" * 9000,
        "[1e999, 2]",
        '[NaN, "x"]',
        '{"a": 1}',
        "null",
        "[[], {}]",
    ]
] + [
    f"page=page_{odd}"
    for odd in [
        "1_2",
        "1_file_",
        "-1_file_a",
        "1e9_file_a",
        "nan_file_a",
        "\u0661_file_a",
        "1_file_a%0A",
    ]
]
TEXT = ("notes.txt", b"some notes", "text/plain")


@pytest.fixture
async def client(tmp_path: Path):
    own = replace(SETTINGS, paths=under_home(tmp_path))
    async with in_memory(app_of(ScriptedEngine([says("ok")]), settings=own)) as client:
        yield client


async def upload(client: httpx.AsyncClient, file: object = TEXT, **fields: str) -> httpx.Response:
    return await client.post("/v1/files", files={"file": file}, data=fields)


async def test_uploaded_file_can_be_downloaded(client: httpx.AsyncClient) -> None:
    uploaded = await upload(client, expires_in_seconds="3600")
    metadata = uploaded.json()
    assert uploaded.status_code == 200
    assert (metadata["type"], metadata["filename"]) == ("file", "notes.txt")
    assert (metadata["mime_type"], metadata["size_bytes"]) == ("text/plain", 10)
    assert metadata["downloadable"] is True
    assert metadata["expires_at"] > metadata["created_at"]
    assert (await client.get(f"/v1/files/{metadata['id']}")).json() == metadata
    content = await client.get(f"/v1/files/{metadata['id']}/content")
    assert (content.content, content.headers["content-length"]) == (b"some notes", "10")
    assert content.headers["content-type"].startswith("text/plain")
    assert content.headers["content-disposition"] == "attachment"
    assert content.headers["x-content-type-options"] == "nosniff"


async def test_deleted_file_is_not_found(client: httpx.AsyncClient) -> None:
    file_id = (await upload(client)).json()["id"]
    deleted = await client.delete(f"/v1/files/{file_id}")
    assert deleted.json() == {"id": file_id, "type": "file_deleted"}
    for path in (f"/v1/files/{file_id}", f"/v1/files/{file_id}/content"):
        response = await client.get(path)
        assert response.status_code == 404
        assert response.json()["error"]["message"] == f"File not found: {file_id}"


async def test_pages_list_every_file_once_during_deletions(client: httpx.AsyncClient) -> None:
    file_ids = [(await upload(client)).json()["id"] for _ in range(5)]
    first = (await client.get("/v1/files?limit=2")).json()
    for file in first["data"]:
        await client.delete(f"/v1/files/{file['id']}")
    second = (await client.get(f"/v1/files?limit=2&page={first['next_page']}")).json()
    third = (await client.get(f"/v1/files?limit=2&page={second['next_page']}")).json()
    assert third["next_page"] is None
    seen = [file["id"] for page in (first, second, third) for file in page["data"]]
    assert sorted(seen) == sorted(file_ids)


async def test_files_are_listed_by_their_ids(client: httpx.AsyncClient) -> None:
    file_ids = [(await upload(client)).json()["id"] for _ in range(3)]
    params = [("ids[]", file_ids[0]), ("ids[]", file_ids[2]), ("ids[]", "file_unknown")]
    page = (await client.get("/v1/files", params=params)).json()
    assert {file["id"] for file in page["data"]} == {file_ids[0], file_ids[2]}
    assert page["next_page"] is None


@pytest.mark.parametrize(
    "query",
    ["limit=0", "page=page_x", "page=x", "page=", "ids[]=a&limit=3", "page=page_MTIz", *ODD_PAGES],
)
async def test_invalid_query_is_refused(client: httpx.AsyncClient, query: str) -> None:
    response = await client.get(f"/v1/files?{query}")
    assert response.status_code == 400


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("/etc/passwd", "passwd"),
        ("C:\\\\Users\\\\me\\\\a.txt", "a.txt"),
        ("..", "unnamed.txt"),
        ("dir/", "unnamed.txt"),
        ("x\x1b[31m\u202e.txt", "x[31m.txt"),
        ("é" * 300, "é" * 255),
    ],
)
async def test_filename_is_never_used_as_path(
    client: httpx.AsyncClient, sent: str, stored: str
) -> None:
    response = await upload(client, (sent, b"x", "text/plain"))
    assert response.json()["filename"] == stored


@pytest.mark.parametrize(
    ("name", "sent", "stored"),
    [
        ("a.json", "application/json", "application/json"),
        ("a.md", "application/octet-stream", "text/markdown"),
        ("a.csv", "", "text/csv"),
        ("a", "application/octet-stream", "text/plain"),
        ("a.ts", "", "text/plain"),
        ("a.yaml", "", "application/yaml"),
        ("a.bin", "text/html; charset=utf-8", "text/html"),
        ("a.x", "application/vnd.api+json", "application/vnd.api+json"),
    ],
)
async def test_text_is_accepted_under_any_file_name(
    client: httpx.AsyncClient, name: str, sent: str, stored: str
) -> None:
    response = await upload(client, (name, b"{}", sent))
    assert response.json()["mime_type"] == stored


@pytest.mark.parametrize("sent", ["application/pdf", "application/octet-stream", ""])
async def test_a_pdf_is_accepted(client: httpx.AsyncClient, sent: str) -> None:
    response = await upload(client, ("a.pdf", b"\n%PDF-1.7\xff", sent))
    assert response.json()["mime_type"] == "application/pdf"


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (("a.pdf", b"%PNG", "application/pdf"), "the content is not a PDF"),
        (("a.pdf", b" " * 1020 + b"%PDF-", "application/pdf"), "the content is not a PDF"),
        (("a.txt", b"%PDF-\xff", "text/plain"), "the content is not text in UTF-8"),
        (("a.png", b"x", "image/png"), "files of type 'image/png' are not supported"),
        (("a.png", b"\xff", "application/octet-stream"), "files of type 'image/png'"),
        (("a.svg", b"x", "image/svg+xml"), "files of type 'image/svg+xml'"),
        (("a.txt", b"\xff\xfe", "text/plain"), "the content is not text in UTF-8"),
        (("a.txt", b"a\0b", "text/plain"), "the content is not text in UTF-8"),
    ],
)
async def test_file_that_is_not_text_is_refused(
    client: httpx.AsyncClient, file: object, message: str
) -> None:
    response = await upload(client, file)
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith(f"file: {message}")


async def test_invalid_upload_is_refused(client: httpx.AsyncClient) -> None:
    for options, message in (
        ({"json": {}}, "content-type: Input should be 'multipart/form-data'"),
        ({"files": {"other": TEXT}}, "file: Field required"),
        ({"files": {"x": TEXT}, "data": {"file": "text"}}, "file: Input should be a file"),
        ({"files": [("file", TEXT), ("file", TEXT)]}, "The request body is not a valid form"),
        ({"files": {"file": TEXT}, "data": {str(n): "x" for n in range(17)}}, "The request body"),
        ({"files": {"file": TEXT}, "data": {"expires_in_seconds": "5"}}, "expires_in_seconds: In"),
    ):
        response = await client.post("/v1/files", **options)
        assert response.status_code == 400
        assert response.json()["error"]["message"].startswith(message)


async def test_file_over_limit_is_refused_announced_or_chunked(
    client: httpx.AsyncClient,
) -> None:
    boundary = {"content-type": "multipart/form-data; boundary=x"}
    boundary |= {"anthropic-version": "2023-06-01"}

    async def chunks():
        yield b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
        for _ in range(33):
            yield b"a" * 1024 * 1024

    response = await client.post("/v1/files", content=chunks(), headers=boundary)
    assert (response.status_code, response.json()["error"]["type"]) == (413, "request_too_large")
    response = await upload(client, ("a.txt", b"a" * (32 * 1024 * 1024 + 1), "text/plain"))
    assert response.status_code == 413
    response = await upload(client, ("a.txt", b"a" * (32 * 1024 * 1024), "text/plain"))
    assert response.status_code == 200


async def test_upload_to_openais_api_is_not_found_and_stores_nothing(
    client: httpx.AsyncClient,
) -> None:
    image = ("a.png", b"\x89PNG", "image/png")
    for file in (TEXT, image):
        response = await upload(client, file, purpose="assistants")
        assert response.status_code == 404
        assert response.json()["error"] == {
            "message": "OpenAI's files are not here: send their text in the messages.",
            "type": "invalid_request_error",
            "param": None,
            "code": "not_found",
        }
    assert (await client.get("/v1/files")).json()["data"] == []
    client.headers["anthropic-version"] = "2023-06-01"
    assert (await upload(client, purpose="assistants")).status_code == 200


HEADS = st.sampled_from(
    [
        b"--x",
        b"\r\n",
        b"--",
        b"content-disposition: form-data",
        b'; name="file"',
        b'; filename="a.txt"',
        b"content-type: text/plain; charset=",
        b"\0\xff",
        b"content-transfer-encoding: base64",
    ]
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    pieces=st.lists(HEADS | st.binary(max_size=8), max_size=14),
    kind=st.sampled_from(["; boundary=x", "", "; boundary=", "; boundary=x; charset=hex", ";;="]),
)
def test_arbitrary_form_never_causes_a_server_error(pieces: list[bytes], kind: str) -> None:
    import anyio

    anyio.run(_post_form, b"".join(pieces), kind)


async def _post_form(body: bytes, kind: str) -> None:
    headers = {"content-type": f"multipart/form-data{kind}", "x-api-key": KEY}
    async with in_memory(app_of(ScriptedEngine([[]])), headers) as client:
        response = await client.post("/v1/files", content=body)
    assert response.status_code == 400
