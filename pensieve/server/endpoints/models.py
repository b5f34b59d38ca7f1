"""`GET /v1/models` and `GET /v1/models/{id}`: the one model that is served, under each of its names.

It is listed twice: under the name that people type, and under one that begins with `claude`, since Claude Code's model
discovery shows no other (2026-11, Claude Code 2.1.330). Its Hub name is found, though not listed.
"""

from starlette.requests import Request
from starlette.responses import Response

from pensieve.api.base import rfc3339
from pensieve.api.models import (
    Capabilities,
    ContextManagement,
    Effort,
    ModelInfo,
    ModelPage,
    ModelsQuery,
    Support,
    Thinking,
    ThinkingTypes,
)
from pensieve.api.pagination import window
from pensieve.engine.generation import Engine
from pensieve.errors import NotFoundError
from pensieve.models.served_model import ServedModel
from pensieve.server.http.json_response import json_response

ALIAS_PREFIX = "claude-local/"

YES = Support(supported=True)
EFFORTS = ("low", "medium", "high", "xhigh", "max")


def capabilities_of(model: ServedModel) -> Capabilities:
    """What the served model can do here. Thinking, and how hard, is what its family has marks for."""
    form = model.dialect.thinking
    thinks = Support(supported=form is not None)
    efforts = frozenset(form.efforts) if form is not None else frozenset[str]()
    levels = {word: Support(supported=word in efforts) for word in EFFORTS}
    return Capabilities(
        batch=YES,
        context_management=ContextManagement(supported=True, clear_tool_uses_20250919=YES),
        effort=Effort(supported=bool(efforts), **levels),
        structured_outputs=YES,
        thinking=Thinking(
            supported=thinks.supported,
            types=ThinkingTypes(adaptive=thinks, between_tools=thinks, enabled=thinks),
        ),
    )


class ModelsEndpoint:
    """Tells of the served model."""

    def __init__(self, engine: Engine, model: ServedModel) -> None:
        self._engine = engine
        self._model = model
        self._capabilities = capabilities_of(model)
        self._alias = ALIAS_PREFIX + model.name

    async def page(self, request: Request) -> Response:
        """A page of models."""
        query = ModelsQuery.of(request.query_params.multi_items())
        listed = [self._info(self._model.name), self._info(self._alias)]
        found = [info for info in listed if info.lifecycle in query.lifecycle]
        shown = window([info.id for info in found], query)
        data = tuple(found[shown.start : shown.stop])
        page = ModelPage(
            data=data,
            has_more=shown.has_more,
            first_id=data[0].id if data else None,
            last_id=data[-1].id if data else None,
        )
        return json_response(page)

    async def one(self, request: Request) -> Response:
        """One model; the id may hold slashes, plain or encoded."""
        model_id = str(request.path_params["model_id"])
        if model_id == self._alias:
            return json_response(self._info(self._alias))
        if model_id in {self._model.name, self._model.repo}:
            return json_response(self._info(self._model.name))
        raise NotFoundError(f"model: {model_id}")

    def _info(self, model_id: str) -> ModelInfo:
        """The model under one name. Its context is what the model takes and memory guarantees, once that is known."""
        context_tokens = self._engine.health.context_of(self._model.context_tokens)
        return ModelInfo(
            id=model_id,
            display_name=self._model.name,
            created_at=rfc3339(self._model.created_at),
            max_input_tokens=context_tokens,
            max_tokens=context_tokens,
            capabilities=self._capabilities,
        )
