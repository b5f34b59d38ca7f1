"""`GET /v1/models` and `GET /v1/models/{id}`: the one served model, under each of its names.

It is listed twice: under the name that people type, and under one that begins with `claude`, since
Claude Code's model discovery shows no other (2026-11, Claude Code 2.1.330). Its Hub name is
accepted but not listed. A client that names a version of Anthropic's API gets that API's values,
others those of both.
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
from pensieve.errors import ModelNotFoundError
from pensieve.models.served_model import ServedModel
from pensieve.openai.models import Model, ModelList
from pensieve.server.http.responses import json_response
from pensieve.server.middleware.request_context import request_context_of
from pensieve.server.wire import ANTHROPIC

ALIAS_PREFIX = "claude-local/"

SUPPORTED = Support(supported=True)
EFFORTS = ("low", "medium", "high", "xhigh", "max")


def capabilities_of(model: ServedModel) -> Capabilities:
    form = model.dialect.thinking
    thinks = Support(supported=form is not None)
    efforts = frozenset(form.efforts) if form is not None else frozenset[str]()
    levels = {effort: Support(supported=effort in efforts) for effort in EFFORTS}
    return Capabilities(
        batch=SUPPORTED,
        context_management=ContextManagement(supported=True, clear_tool_uses_20250919=SUPPORTED),
        effort=Effort(supported=bool(efforts), **levels),
        image_input=Support(supported=model.sight is not None),
        structured_outputs=SUPPORTED,
        thinking=Thinking(
            supported=thinks.supported,
            types=ThinkingTypes(adaptive=thinks, between_tools=thinks, enabled=thinks),
        ),
    )


class ModelsEndpoint:
    def __init__(self, engine: Engine, model: ServedModel) -> None:
        self._engine = engine
        self._model = model
        self._capabilities = capabilities_of(model)
        self._alias = ALIAS_PREFIX + model.name

    async def list(self, request: Request) -> Response:
        query = ModelsQuery.of(request.query_params.multi_items())
        models = [self._info(self._model.name), self._info(self._alias)]
        matches = [info for info in models if info.lifecycle in query.lifecycle]
        visible = window([info.id for info in matches], query)
        data = tuple(matches[visible.start : visible.stop])
        page = ModelPage(
            data=data,
            has_more=visible.has_more,
            first_id=data[0].id if data else None,
            last_id=data[-1].id if data else None,
        )
        if _is_anthropics(request):
            return json_response(page)
        return json_response(
            ModelList(
                data=tuple(map(self._with_both, data)),
                has_more=page.has_more,
                first_id=page.first_id,
                last_id=page.last_id,
            )
        )

    async def retrieve(self, request: Request) -> Response:
        """The id may contain slashes, plain or encoded."""
        model_id = str(request.path_params["model_id"])
        if model_id not in {self._alias, self._model.name, self._model.repo}:
            raise ModelNotFoundError(model_id)
        info = self._info(self._alias if model_id == self._alias else self._model.name)
        return json_response(info if _is_anthropics(request) else self._with_both(info))

    def _info(self, model_id: str) -> ModelInfo:
        health = self._engine.health
        context_tokens = health.context_of(self._model.context_tokens)
        sees = Support(supported=self._model.sight is not None and health.sees)
        return ModelInfo(
            id=model_id,
            display_name=self._model.name,
            created_at=rfc3339(self._model.created_at),
            max_input_tokens=context_tokens,
            max_tokens=context_tokens,
            capabilities=self._capabilities.model_copy(update={"image_input": sees}),
        )

    def _with_both(self, info: ModelInfo) -> Model:
        return Model(
            **dict(info),
            created=int(self._model.created_at),
            context_length=info.max_input_tokens,
        )


def _is_anthropics(request: Request) -> bool:
    return request_context_of(request.scope).wire is ANTHROPIC
