"""The pages on each API name existing tests and messages, and have a row for every feature."""

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest

from pensieve import errors
from pensieve.api.errors import ErrorType
from pensieve.api.messages.content_blocks import ContentBlock, ResultPart
from pensieve.api.messages.events import ContentBlockDelta, StreamEvent
from pensieve.api.messages.message import StopReason, Usage
from pensieve.api.messages.request import CountTokensRequest, MessagesRequest
from pensieve.api.messages.tools import ClientToolType, ComputerUseToolType, ServerToolType
from pensieve.openai.chat_completion import FinishReason
from pensieve.openai.chat_request import ChatRequest, Role
from pensieve.openai.responses.events import STREAM_EVENTS
from pensieve.openai.responses.items import _KINDS
from pensieve.openai.responses.request import ResponsesRequest
from pensieve.openai.responses.response import ResponseStatus
from pensieve.openai.text_completion import TextCompletionRequest
from pensieve.server.openai.wire import ERRORS
from pensieve.server.wire import _TABLE
from tests.server.serving import app_of, in_memory
from tests.support.fakes import ScriptedEngine

ROOT = Path(__file__).parent.parent
PAGES = (
    ROOT / "docs" / "conformance.md",
    ROOT / "docs" / "openai.md",
    ROOT / "docs" / "responses.md",
)
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
STATES = ("supported", "flattened", "ignored", "refused", "not here")
ABSENT = ("not here",)

SOURCES = set((ROOT / "pensieve").rglob("*.py"))

_PATH = re.compile(r"^[a-z_]+(\.[a-z0-9_]+)+: ")
_NAMED = re.compile(r"`(tests/[a-z0-9_/]+\.py)::([a-z0-9_]+)`")
_QUOTED = re.compile(r"``(.+?)``|`([^`]+)`")
_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Row:
    """One row of a table of the pages."""

    section: str
    subject: str
    here: str
    shown_by: str

    @property
    def names(self) -> set[str]:
        return set(_CODE.findall(self.subject))


def rows(section: str | None = None) -> Iterator[Row]:
    heading = ""
    for line in TEXT.splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        is_row = line.startswith("| ") and len(cells) == 3 and cells[1] != "here"
        if is_row and section in (None, heading):
            yield Row(heading, *cells)


def named(section: str, *, absent: bool | None = None) -> set[str]:
    """Return the names in a section's rows, either of unsupported features or of the others."""
    chosen = [
        row for row in rows(section) if absent is None or row.here.startswith(ABSENT) == absent
    ]
    return set().union(*(row.names for row in chosen))


@cache
def functions_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@cache
def texts_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return {text for text in constants if isinstance(text, str)}


def refusals(row: Row) -> list[str]:
    """Return the error messages that a row quotes."""
    _, refused, quoted = row.here.partition("refused")
    messages = [(double or single).strip() for double, single in _QUOTED.findall(quoted)]
    return [message for message in messages if " " in message] if refused else []


def tags(*unions: Any) -> set[str]:
    """Return the values of `type` in the members of unions."""
    members = [member for union in unions for member in get_args(get_args(union)[0])]
    return {tag for member in members for tag in get_args(member.model_fields["type"].annotation)}


def families(kinds: Iterable[str]) -> set[str]:
    """Return tool types without their dates."""
    return {re.sub(r"(_regex|_bm25)?(_[0-9]{8})?$", "", kind) for kind in kinds}


def test_the_pages_have_rows() -> None:
    assert len(list(rows())) > 100
    assert all(row.section for row in rows())


@pytest.mark.parametrize("row", list(rows()), ids=lambda row: row.subject[:60])
def test_every_row_states_behaviour_and_tests(row: Row) -> None:
    assert row.here.startswith(STATES)
    tests = _NAMED.findall(row.shown_by)
    assert _NAMED.sub("", row.shown_by).strip() in {"", "-"}
    assert tests
    if row.here.startswith("refused"):
        assert refusals(row)


@pytest.mark.parametrize(
    "row", [row for row in rows() if refusals(row)], ids=lambda row: row.subject[:60]
)
def test_quoted_error_messages_occur_in_code_or_tests(row: Row) -> None:
    """Ignores the path before a message and placeholders for names."""
    files = {ROOT / file for file, _ in _NAMED.findall(row.shown_by)}
    texts = set().union(*map(texts_of, files | SOURCES))
    for message in refusals(row):
        for part in _PATH.sub("", message).split("…"):
            assert any(part.strip() in text for text in texts), part


@pytest.mark.parametrize("path", sorted({file for file, _ in _NAMED.findall(TEXT)}))
def test_every_named_test_exists(path: str) -> None:
    names = {name for file, name in _NAMED.findall(TEXT) if file == path}
    assert Path(path).name.startswith("test_")
    assert all(name.startswith("test_") for name in names)
    assert names <= functions_of(ROOT / path)


@pytest.mark.anyio
async def test_every_endpoint_has_its_row() -> None:
    async with in_memory(app_of(ScriptedEngine([[]]))) as client:
        document = (await client.get("/openapi.json")).json()
    endpoints = {
        f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item
    }
    assert {name for name in named("Endpoints", absent=False) if name[0].isupper()} == endpoints


def test_every_field_of_a_request_has_its_row() -> None:
    fields = {*MessagesRequest.model_fields, *CountTokensRequest.model_fields}
    assert fields <= named("Request fields")


def test_every_content_block_has_its_row() -> None:
    assert tags(ContentBlock, ResultPart) <= named("Content blocks")


def test_every_tool_of_anthropics_has_its_row() -> None:
    tools = families(
        kind
        for union in (ClientToolType, ServerToolType, ComputerUseToolType)
        for kind in get_args(union)
    )
    assert tools == {name.rstrip("*").rstrip("_") for name in named("Tools")} & tools


def test_every_event_and_stop_reason_has_its_row() -> None:
    events = {event.model_fields["type"].default for event in get_args(StreamEvent)}
    delta = ContentBlockDelta.model_fields["delta"].annotation
    deltas = {one.model_fields["type"].default for one in get_args(delta) or [delta]}
    assert events | deltas == named("Stream events", absent=False)
    assert set(get_args(StopReason)) == named("Stop reasons", absent=False)


def test_every_field_of_usage_has_its_row() -> None:
    assert set(Usage.model_fields) == named("Usage")


def test_every_fault_of_the_server_has_its_row() -> None:
    sent = {(fault.status, fault.kind) for fault in _TABLE.values()} - {(431, "request_too_large")}
    here = [row for row in rows("Errors") if not row.here.startswith(ABSENT)]
    assert {(int(row.subject[:3]), *row.names) for row in here} == sent
    assert set(get_args(ErrorType)) <= named("Errors")


def test_every_field_of_a_chat_request_has_its_row() -> None:
    assert ChatRequest.model_fields.keys() <= named("Chat request fields")
    own = TextCompletionRequest.model_fields.keys() - ChatRequest.model_fields.keys()
    assert own <= named("Text completions")
    assert {*get_args(Role)} <= named("Chat messages")


def test_every_finish_reason_has_its_row() -> None:
    assert {*get_args(FinishReason)} <= named("Chat answers", absent=False)


def test_every_error_of_openais_api_has_its_row() -> None:
    sent = {(one.status, *filter(None, [one.code])) for one in ERRORS.values()}
    here = {(int(row.subject[:3]), *row.names) for row in rows("OpenAI errors")}
    assert here == sent - {(431, "request_too_large")}


def test_every_part_of_responses_has_its_row() -> None:
    assert ResponsesRequest.model_fields.keys() <= named("Response request fields")
    assert _KINDS.keys() <= named("Input items")
    sent = {
        kind for event in STREAM_EVENTS for kind in get_args(event.model_fields["type"].annotation)
    }
    assert sent == named("Response stream events", absent=False) - {"sequence_number"}
    assert {*get_args(ResponseStatus)} <= named("Response output", absent=False)


def test_every_error_code_has_its_row() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {kind.error_code for kind in kinds if issubclass(kind, errors.RequestError)}
    assert codes - {None} == named("Error codes", absent=False)
