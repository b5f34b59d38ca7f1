"""Tools of a Responses request, as tools with names and schemas that a model can call.

A model calls by one name: a namespaced tool is shown under a joined one. A custom tool, whose input
is text, is shown as a function of one text. `DeclaredTools` translates the calls back.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2s
from typing import Annotated, Literal

from pydantic import Field, StrictBool

from pensieve.api.base import RequestModel
from pensieve.api.messages.tools import CustomTool as ToolWithSchema
from pensieve.api.messages.tools import InputGrammar
from pensieve.openai.responses.items import decode_at
from pensieve.openai.responses.request import JsonObject
from pensieve.openai.tool_kinds import log_ignored_tools, text_tool

MAX_NAME_CHARS = 64
_DIGEST_CHARS = 8
_NO_ARGUMENTS: JsonObject = {"type": "object", "properties": {}}
_OTHER_CHARS = re.compile(r"[^A-Za-z0-9_-]+")

ToolKind = Literal["function", "custom"]
ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,128}$")]


class FunctionTool(RequestModel):
    """A function that the client runs."""

    name: ToolName
    description: str = ""
    parameters: JsonObject = {}  # noqa: RUF012 -- pydantic copies it
    strict: StrictBool = False


class CustomTool(RequestModel):
    """A tool of the client whose input is text."""

    name: ToolName
    description: str = ""
    format: JsonObject = {}  # noqa: RUF012 -- pydantic copies it


class Namespace(RequestModel):
    """A group of tools."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    tools: tuple[JsonObject, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolRef:
    """A tool as its client knows it."""

    kind: ToolKind
    name: str
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class DeclaredTools:
    tools: tuple[ToolWithSchema, ...] = ()
    paths: tuple[str, ...] = ()  # of `tools` in the request
    refs: Mapping[str, ToolRef] = field(default_factory=dict[str, ToolRef])  # by the model's name

    def ref(self, model_name: str) -> ToolRef:
        return self.refs.get(model_name) or ToolRef("function", model_name)

    def model_name(self, name: str, namespace: str | None = None) -> str:
        """Return the name by which the model calls a tool, also for one that was not declared."""
        names = (
            model_name
            for model_name, ref in self.refs.items()
            if (ref.name, ref.namespace) == (name, namespace or None)
        )
        return next(names, joined_name(name, namespace))


def declared_tools(tools: Sequence[JsonObject], path: str = "tools") -> DeclaredTools:
    """Return all tools that a model can call; others are logged and left out.

    Raises `InvalidRequestError`.
    """
    ignored: list[object] = []
    found = list(_tools(tools, path, ignored))
    log_ignored_tools(ignored)
    # These names are not joined ones, so they come first.
    plain = {ref.name for _, ref, _ in found if not ref.namespace}
    refs: dict[str, ToolRef] = {}
    shown: list[ToolWithSchema] = []
    for _, ref, tool in found:
        name = joined_name(ref.name, ref.namespace)
        if ref.namespace and name in plain | refs.keys():
            name = _shortened(f"{ref.namespace} {ref.name}")
        refs[name] = ref
        shown.append(tool.model_copy(update={"name": name}))
    return DeclaredTools(tuple(shown), tuple(tool_path for tool_path, *_ in found), refs)


def joined_name(name: str, namespace: str | None) -> str:
    if not namespace:
        return name
    joined = _OTHER_CHARS.sub("_", f"{namespace}__{name}")
    return joined if len(joined) <= MAX_NAME_CHARS else _shortened(joined)


def _shortened(name: str) -> str:
    """Return a name for `name` that no other one has, the same in every request."""
    digest = blake2s(name.encode()).hexdigest()[:_DIGEST_CHARS]
    start = _OTHER_CHARS.sub("_", name)[: MAX_NAME_CHARS - _DIGEST_CHARS - 1]
    return f"{start}_{digest}"


def _tools(
    tools: Sequence[JsonObject], path: str, ignored: list[object], namespace: str | None = None
) -> Iterator[tuple[str, ToolRef, ToolWithSchema]]:
    """Yield the path of each tool, how its client knows it, and how a model does.

    ignored: gets the types of the others.
    """
    for at, fields in enumerate(tools):
        tool_path = f"{path}.{at}"
        match fields.get("type", "function"):
            case "function" | None:
                function = decode_at(tool_path, FunctionTool, fields)
                yield tool_path, ToolRef("function", function.name, namespace), _function(function)
            case "custom":
                custom = decode_at(tool_path, CustomTool, fields)
                ref = ToolRef("custom", custom.name, namespace)
                yield tool_path, ref, _custom(custom, tool_path)
            case "namespace" if namespace is None:
                group = decode_at(tool_path, Namespace, fields)
                yield from _tools(group.tools, f"{tool_path}.tools", ignored, group.name)
            case kind:
                ignored.append(kind)


def _function(tool: FunctionTool) -> ToolWithSchema:
    # Also with `defer_loading`: the tool that would search for it runs elsewhere.
    return ToolWithSchema(
        type="custom",
        name=tool.name,
        description=tool.description,
        input_schema=tool.parameters or _NO_ARGUMENTS,
        strict=tool.strict,
    )


def _custom(tool: CustomTool, path: str) -> ToolWithSchema:
    grammar = None
    if tool.format.get("type") == "grammar":
        grammar = decode_at(f"{path}.format", InputGrammar, tool.format)
    return text_tool(tool.name, tool.description, grammar)
