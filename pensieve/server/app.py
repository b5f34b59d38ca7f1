"""The application: every route and layer, built in one place from what it is handed."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from pensieve.engine.generation import Engine
from pensieve.errors import MethodNotAllowedError, NotFoundError
from pensieve.models.served import ServedModel
from pensieve.server.auth import Guard
from pensieve.server.boundary import Boundary, exchange_of
from pensieve.server.calls import CallReader
from pensieve.server.count_tokens import CountTokensEndpoint
from pensieve.server.errors import error_response
from pensieve.server.health import HealthEndpoint, greeting
from pensieve.server.listing import ModelsEndpoint
from pensieve.server.messages import MessagesEndpoint
from pensieve.server.sse import Pace
from pensieve.settings import Settings


def build_app(
    engine: Engine, model: ServedModel, settings: Settings, *, pace: Pace | None = None
) -> Starlette:
    """The server for one model. `settings` gives the key, the host that was asked for and the device in use."""
    app = Starlette(
        routes=_routes(engine, model, settings, pace or Pace()),
        middleware=[
            Middleware(Boundary),
            Middleware(Guard, host=settings.host, api_key=settings.api_key),
        ],
        exception_handlers={HTTPException: _routing_error},
    )
    # A redirect would be built from the Host header.
    app.router.redirect_slashes = False
    return app


def _routes(engine: Engine, model: ServedModel, settings: Settings, pace: Pace) -> list[BaseRoute]:
    calls = CallReader(model)
    models = ModelsEndpoint(model)
    return [
        Route("/v1/messages", MessagesEndpoint(engine, model, calls, pace), methods=["POST"]),
        Route("/v1/messages/count_tokens", CountTokensEndpoint(calls).count, methods=["POST"]),
        Route("/v1/models", models.page),
        Route("/v1/models/{model_id:path}", models.one),
        Route("/health", HealthEndpoint(engine, model, settings).health),
        Route("/", greeting),
        Route("/api/hello", greeting),
    ]


async def _routing_error(request: Request, error: Exception) -> Response:
    """Starlette's own word for a path or a method that is not ours, in the envelope."""
    assert isinstance(error, HTTPException)
    ours = (
        MethodNotAllowedError(f"Method {request.method} is not allowed here.")
        if error.status_code == 405
        else NotFoundError("The requested resource could not be found.")
    )
    return error_response(ours, exchange_of(request.scope).request_id, headers=error.headers)
