"""Builds the application: every operation and layer, in one place. `run` and tests call it."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from pensieve.engine.generation import Engine
from pensieve.errors import MethodNotAllowedError, NotFoundError
from pensieve.models.served_model import ServedModel
from pensieve.prompt.template.generated_answers import GeneratedAnswers
from pensieve.server.batches.endpoint import BatchesEndpoint
from pensieve.server.batches.registry import BatchRegistry
from pensieve.server.batches.store import BatchStore
from pensieve.server.batches.worker import BatchWorker
from pensieve.server.endpoints.health import HealthEndpoint
from pensieve.server.endpoints.models import ModelsEndpoint
from pensieve.server.errors import error_response
from pensieve.server.files.endpoint import FilesEndpoint
from pensieve.server.files.store import FileStore
from pensieve.server.http.body_budget import BodyAdmission, BodyBudget
from pensieve.server.http.sse import PingInterval
from pensieve.server.messages.completion import Completer
from pensieve.server.messages.count_tokens import CountTokensEndpoint
from pensieve.server.messages.endpoint import MessagesEndpoint
from pensieve.server.messages.generated_answer_store import GeneratedAnswerStore
from pensieve.server.messages.pipeline import RequestPipeline
from pensieve.server.messages.sessions import Sessions
from pensieve.server.middleware.access import AccessMiddleware, access_of
from pensieve.server.middleware.base_urls import BaseURLMiddleware, address_hint
from pensieve.server.middleware.cors import CORSMiddleware
from pensieve.server.middleware.request_context import RequestMiddleware, request_context_of
from pensieve.server.operations import routes
from pensieve.server.routes import Endpoints, operations
from pensieve.settings.resolve import Settings


def build_app(
    engine: Engine,
    model: ServedModel,
    settings: Settings,
    *,
    ping_interval: PingInterval | None = None,
    budget: BodyBudget | None = None,
) -> Starlette:
    """Return the server for one model; `settings` gives the key, the requested host and the device.

    Message batches are answered while its lifespan is entered (`app.router.lifespan_context`),
    which must lie within the engine's block.
    """
    model = model.with_settings(settings)
    files = FileStore(settings.paths.files)
    registry = BatchRegistry(BatchStore(settings.paths.batches))
    generated_answers = GeneratedAnswers()
    answer_store = GeneratedAnswerStore(
        settings.paths.answers, model.folder, generated_answers, model.tokenizer.has_token
    )

    def context_tokens() -> int:
        return engine.health.context_of(model.context_tokens)

    pipeline = RequestPipeline(model, files.text, generated_answers, context_tokens)
    completer = Completer(engine, model, pipeline, answer_store.add)
    sessions = Sessions(model.tokenizer.neutralize)
    batch_worker = BatchWorker(registry, completer.answer_batched)
    endpoints = Endpoints(
        messages=MessagesEndpoint(completer, pipeline, sessions, ping_interval or PingInterval()),
        count_tokens=CountTokensEndpoint(pipeline),
        batches=BatchesEndpoint(registry),
        models=ModelsEndpoint(engine, model),
        files=FilesEndpoint(files),
        health=HealthEndpoint(engine, model, settings, sessions),
    )

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        async with answer_store.open(), batch_worker.working():
            yield

    app = Starlette(
        routes=routes(operations(endpoints)),
        middleware=_middleware(settings, budget or BodyBudget()),
        exception_handlers={HTTPException: _routing_error},
        lifespan=lifespan,
    )
    # A redirect would be built from the Host header.
    app.router.redirect_slashes = False
    return app


def _middleware(settings: Settings, budget: BodyBudget) -> list[Middleware]:
    # From the outside in: access is decided by the path as sent, before anything is read.
    return [
        Middleware(RequestMiddleware),
        Middleware(AccessMiddleware, access=access_of(settings)),
        Middleware(CORSMiddleware),
        Middleware(BaseURLMiddleware),
        Middleware(BodyAdmission, budget=budget),
    ]


async def _routing_error(request: Request, error: Exception) -> Response:
    """Put starlette's error for an unknown path or method into Anthropic's envelope."""
    assert isinstance(error, HTTPException)
    our_error = (
        MethodNotAllowedError(f"Method {request.method} is not allowed here.")
        if error.status_code == 405
        else NotFoundError(
            f"The requested resource could not be found.{address_hint(request.scope)}"
        )
    )
    return error_response(
        our_error, request_context_of(request.scope).request_id, headers=error.headers
    )
