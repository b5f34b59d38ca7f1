"""Tool definitions and the choice among them, by who runs the tool: the client, or the hosted API.

Tools of Anthropic's own have dated types. A date that is not known yet is read as the newest known one of its family.
"""

import re
from typing import Annotated, Literal, cast, get_args

from pydantic import BeforeValidator, Field, JsonValue, StrictBool

from pensieve.api.base import RequestModel
from pensieve.api.messages.content_blocks import CacheControl

# The tools that clients run, whose schemas they leave to the server.
ClientToolType = Literal[
    "bash_20241022",
    "bash_20250124",
    "text_editor_20241022",
    "text_editor_20250124",
    "text_editor_20250429",
    "text_editor_20250728",
    "memory_20250818",
]
ServerToolType = Literal[
    "web_search_20250305",
    "web_search_20260209",
    "web_search_20260318",
    "web_fetch_20250910",
    "web_fetch_20260209",
    "web_fetch_20260309",
    "web_fetch_20260318",
    "code_execution_20250522",
    "code_execution_20250825",
    "code_execution_20260120",
    "code_execution_20260521",
    "tool_search_tool_regex",
    "tool_search_tool_regex_20251119",
    "tool_search_tool_bm25",
    "tool_search_tool_bm25_20251119",
    "advisor_20260301",
    "mcp_toolset",
]
ScreenToolType = Literal[
    "computer_20241022",
    "computer_20250124",
    "computer_20251124",
    "computer_toolset_20260801",
    "browser_toolset_20260801",
]

_DATE = re.compile(r"_[0-9]{8}$")
_KNOWN: tuple[str, ...] = (
    *get_args(ClientToolType),
    *get_args(ServerToolType),
    *get_args(ScreenToolType),
)
_NEWEST = {_DATE.sub("", kind): kind for kind in _KNOWN}

ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,128}$")]


class _Tool(RequestModel):
    cache_control: CacheControl | None = None
    defer_loading: StrictBool = False


class CustomTool(_Tool):
    """A tool of the client's, with its schema. The schema is not checked: clients send odd ones that the API takes."""

    type: Literal["custom"]
    name: ToolName
    description: str = ""
    input_schema: dict[str, JsonValue]
    strict: StrictBool = False


class ClientTool(_Tool):
    """A tool that Anthropic defines and the client runs."""

    type: ClientToolType
    name: ToolName


class ServerTool(_Tool):
    """A tool that only the hosted API can run. A toolset has no name of its own."""

    type: ServerToolType
    name: str = ""

    @property
    def is_search(self) -> bool:
        """It finds the tools that are loaded later."""
        return self.type.startswith("tool_search_tool")


class ComputerUseTool(_Tool):
    """A tool that the client runs and whose results are pictures."""

    type: ScreenToolType
    name: str = ""


def _with_kind(tool: object) -> object:
    if not isinstance(tool, dict):
        return tool
    fields = cast("dict[str, object]", tool)
    kind = fields.get("type")
    if kind is None:
        return {**fields, "type": "custom"}
    if not isinstance(kind, str) or kind in _KNOWN or not _DATE.search(kind):
        return fields
    return {**fields, "type": _NEWEST.get(_DATE.sub("", kind), kind)}


_AnyTool = CustomTool | ClientTool | ServerTool | ComputerUseTool
Tool = Annotated[
    Annotated[_AnyTool, Field(discriminator="type")],
    BeforeValidator(_with_kind, json_schema_input_type=_AnyTool),
]


class AutoChoice(RequestModel):
    """The model decides."""

    type: Literal["auto"]
    disable_parallel_tool_use: StrictBool = False


class AnyChoice(RequestModel):
    """Some tool must be used."""

    type: Literal["any"]
    disable_parallel_tool_use: StrictBool = False


class NamedChoice(RequestModel):
    """This tool must be used."""

    type: Literal["tool"]
    name: str
    disable_parallel_tool_use: StrictBool = False


class NoChoice(RequestModel):
    """No tool may be used."""

    type: Literal["none"]


ToolChoice = Annotated[AutoChoice | AnyChoice | NamedChoice | NoChoice, Field(discriminator="type")]
