"""Tool definitions, and the choice among them. Either the client or the hosted API runs a tool.

Tools that Anthropic defines have dated types. An unknown date is read as the newest known date.
"""

import re
from typing import Annotated, Literal, cast, get_args

from pydantic import BeforeValidator, Field, JsonValue, StrictBool

from pensieve.api.base import RequestModel
from pensieve.api.messages.content_blocks import CacheControl

# Tools that clients run and whose schemas the server supplies.
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
ComputerUseToolType = Literal[
    "computer_20241022",
    "computer_20250124",
    "computer_20251124",
    "computer_toolset_20260801",
    "browser_toolset_20260801",
]

_DATE = re.compile(r"_[0-9]{8}$")
_TYPES: tuple[str, ...] = (
    *get_args(ClientToolType),
    *get_args(ServerToolType),
    *get_args(ComputerUseToolType),
)
_NEWEST = {_DATE.sub("", kind): kind for kind in _TYPES}

ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,128}$")]


class _Tool(RequestModel):
    cache_control: CacheControl | None = None
    defer_loading: StrictBool = False


class CustomTool(_Tool):
    """A tool of the client, with its schema."""

    # The schema is not validated: clients send odd ones that the hosted API accepts.

    type: Literal["custom"]
    name: ToolName
    description: str = ""
    input_schema: dict[str, JsonValue]
    strict: StrictBool = False


class InputGrammar(RequestModel):
    """What a text must match."""

    syntax: Literal["lark", "regex"]
    definition: str


class TextTool(CustomTool):
    """A tool whose one argument is the text `input`. Only OpenAI's API has such tools."""

    input_grammar: InputGrammar | None = None


class ClientTool(_Tool):
    """A tool that Anthropic defines and the client runs."""

    type: ClientToolType
    name: ToolName


class ServerTool(_Tool):
    """A tool that only the hosted API can run. A toolset has no name."""

    type: ServerToolType
    name: str = ""

    @property
    def is_search(self) -> bool:
        """Whether it finds tools with `defer_loading`."""
        return self.type.startswith("tool_search_tool")


class ComputerUseTool(_Tool):
    """A tool that the client runs and whose results are images."""

    type: ComputerUseToolType
    name: str = ""


def _with_known_type(tool: object) -> object:
    if not isinstance(tool, dict):
        return tool
    fields = cast("dict[str, object]", tool)
    kind = fields.get("type")
    if kind is None:
        return {**fields, "type": "custom"}
    if not isinstance(kind, str) or kind in _TYPES or not _DATE.search(kind):
        return fields
    return {**fields, "type": _NEWEST.get(_DATE.sub("", kind), kind)}


_AnyTool = CustomTool | ClientTool | ServerTool | ComputerUseTool
Tool = Annotated[
    Annotated[_AnyTool, Field(discriminator="type")],
    BeforeValidator(_with_known_type, json_schema_input_type=_AnyTool),
]


class AutoChoice(RequestModel):
    """The model may call tools: all, or those of `allowed`, which is not Anthropic's."""

    type: Literal["auto"]
    allowed: tuple[str, ...] | None = None
    disable_parallel_tool_use: StrictBool = False


class AnyChoice(RequestModel):
    """The model must call some tool: any, or one of `allowed`, which is not Anthropic's."""

    type: Literal["any"]
    allowed: tuple[str, ...] | None = None
    disable_parallel_tool_use: StrictBool = False


class NamedChoice(RequestModel):
    """The model must call this tool."""

    type: Literal["tool"]
    name: str
    disable_parallel_tool_use: StrictBool = False


class NoChoice(RequestModel):
    """The model must not call tools."""

    type: Literal["none"]


ToolChoice = Annotated[AutoChoice | AnyChoice | NamedChoice | NoChoice, Field(discriminator="type")]
