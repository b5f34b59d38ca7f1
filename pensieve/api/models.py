"""Values of the models endpoints: names and capabilities of models, pages of models."""

from typing import Annotated, Literal

from pydantic import Field

from pensieve.api.base import ApiModel, Timestamp
from pensieve.api.pagination import CursorQuery

Lifecycle = Literal["active", "deprecated", "retired"]


class Support(ApiModel):
    """Whether a capability is supported."""

    supported: bool = False


class ContextManagement(Support):
    """Strategies of context editing."""

    clear_thinking_20251015: Support = Support()
    clear_tool_uses_20250919: Support = Support()
    compact_20260112: Support = Support()


class Effort(Support):
    """Levels of effort."""

    low: Support = Support()
    medium: Support = Support()
    high: Support = Support()
    xhigh: Support = Support()
    max: Support = Support()


class ServerTools(Support):
    """Tools that the hosted API runs."""

    web_search: Support = Support()
    code_execution: Support = Support()


class ThinkingTypes(ApiModel):
    """Modes of extended thinking."""

    adaptive: Support = Support()
    between_tools: Support = Support()
    disabled: Support = Support(supported=True)
    enabled: Support = Support()


class Thinking(Support):
    """Extended thinking."""

    types: ThinkingTypes = ThinkingTypes()


class Capabilities(ApiModel):
    """What a model can do on this server. Every key that clients know is present."""

    batch: Support = Support()
    citations: Support = Support()
    code_execution: Support = Support()
    context_management: ContextManagement = ContextManagement()
    effort: Effort = Effort()
    image_input: Support = Support()
    pdf_input: Support = Support(supported=True)  # its text
    server_tools: ServerTools = ServerTools()
    structured_outputs: Support = Support()
    thinking: Thinking = Thinking()


class ModelInfo(ApiModel):
    """A model, under one of its names."""

    type: Literal["model"] = "model"
    id: str
    display_name: str
    created_at: Timestamp
    lifecycle: Lifecycle = "active"
    deprecated_at: None = None
    retires_at: None = None
    line: None = None
    max_input_tokens: int
    max_tokens: int
    capabilities: Capabilities = Capabilities()


class ModelPage(ApiModel):
    """A page of models; the next page begins after `last_id`."""

    data: tuple[ModelInfo, ...]
    has_more: bool
    first_id: str | None
    last_id: str | None


class ModelsQuery(CursorQuery):
    """Lists a page of models: by default, all but retired ones."""

    lifecycle: Annotated[tuple[Lifecycle, ...], Field(alias="lifecycle[]", max_length=3)] = (
        "active",
        "deprecated",
    )
