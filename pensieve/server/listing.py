"""`GET /v1/models` and `GET /v1/models/{id}`: the one model that is served, by its name and by its repo."""

from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from pensieve.api.listing import ModelInfo, ModelPage
from pensieve.errors import InvalidRequestError, NotFoundError
from pensieve.models.served import ServedModel

MAX_PAGE = 1000


class ModelsEndpoint:
    """Tells of the served model."""

    def __init__(self, model: ServedModel) -> None:
        self._model = model
        self._info = _model_info(model)

    async def page(self, request: Request) -> Response:
        """A page of models: our only one, unless the page begins after it or ends before it."""
        _check_limit(request.query_params.get("limit"))
        cursor = request.query_params.get("after_id") or request.query_params.get("before_id")
        listed = () if cursor == self._info.id else (self._info,)
        last_id = self._info.id if listed else None
        page = ModelPage(data=listed, first_id=last_id, last_id=last_id)
        return Response(page.to_json(), media_type="application/json")

    async def one(self, request: Request) -> Response:
        """One model; the id may hold slashes, plain or encoded."""
        model_id = request.path_params["model_id"]
        if model_id not in {self._model.name, self._model.repo}:
            raise NotFoundError(f"model: {model_id}")
        return Response(self._info.to_json(), media_type="application/json")


def _model_info(model: ServedModel) -> ModelInfo:
    return ModelInfo(
        id=model.name,
        display_name=model.name,
        created_at=datetime.fromtimestamp(model.created_at, UTC).isoformat().replace("+00:00", "Z"),
        max_input_tokens=model.context_tokens,
        max_tokens=model.context_tokens,
    )


def _check_limit(limit: str | None) -> None:
    if limit is None:
        return
    if not (limit.isascii() and limit.isdecimal() and len(limit) < 20):
        raise InvalidRequestError("limit: Input should be a valid integer")
    if int(limit) < 1:
        raise InvalidRequestError("limit: Input should be greater than or equal to 1")
    if int(limit) > MAX_PAGE:
        raise InvalidRequestError(f"limit: Input should be less than or equal to {MAX_PAGE}")
