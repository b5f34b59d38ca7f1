"""Builds the application: every operation and layer, in one place. `run` and tests call it."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.types import Lifespan

from pensieve.engine.generation import Engine
from pensieve.media.decoder import Decoder
from pensieve.models.served_model import ServedModel
from pensieve.prompt.template.generated_answers import GeneratedAnswers
from pensieve.server.activity.findings import Findings, FindingsCache
from pensieve.server.activity.registry import Activity
from pensieve.server.batches.endpoint import BatchesEndpoint
from pensieve.server.batches.registry import BatchRegistry
from pensieve.server.batches.store import BatchStore
from pensieve.server.batches.worker import BatchWorker
from pensieve.server.endpoints.activity import ActivityEndpoint
from pensieve.server.endpoints.health import HealthEndpoint
from pensieve.server.endpoints.models import ModelsEndpoint
from pensieve.server.files.endpoint import FilesEndpoint
from pensieve.server.files.store import FileStore
from pensieve.server.http.event_stream import PingInterval
from pensieve.server.http.request_body import BodyAdmission, BodyBudget
from pensieve.server.keys.limits import KeyLimiter
from pensieve.server.keys.ring import KeyRing
from pensieve.server.messages.completion import Completer
from pensieve.server.messages.documents import DocumentReader
from pensieve.server.messages.endpoint import MessagesEndpoint
from pensieve.server.messages.generated_answer_store import GeneratedAnswerStore
from pensieve.server.messages.pdf_pages import PageReader
from pensieve.server.messages.pictures import PictureReader
from pensieve.server.messages.pipeline import AnswerWriter, RequestPipeline
from pensieve.server.messages.sessions import Sessions
from pensieve.server.metrics.endpoint import MetricsEndpoint
from pensieve.server.middleware.access import AccessMiddleware, CORSMiddleware, access_of
from pensieve.server.middleware.request_context import RequestMiddleware
from pensieve.server.openai.chat import ChatEndpoint
from pensieve.server.openai.completions import CompletionsEndpoint
from pensieve.server.openai.response_store import ResponseStore
from pensieve.server.openai.responses import ResponsesEndpoint
from pensieve.server.page.endpoint import PageEndpoint
from pensieve.server.routes import Endpoints, operations
from pensieve.server.routing import (
    BaseURLMiddleware,
    Operation,
    routes_of,
    routing_error,
    targets_of,
)
from pensieve.settings.resolve import Settings


@dataclass(frozen=True, slots=True)
class AppParts:
    """What an application is built with in addition to its model; tests replace some of it."""

    ping_interval: PingInterval = field(default_factory=PingInterval)
    budget: BodyBudget = field(default_factory=BodyBudget)
    activity: Activity = field(default_factory=Activity)
    find: Callable[[], Findings] = tuple  # what is wrong with this machine
    log: Path | None = None  # None: it is no file
    certificate_names: tuple[str, ...] = ()  # under which an https server is reached


def build_app(
    engine: Engine, model: ServedModel, settings: Settings, parts: AppParts | None = None
) -> Starlette:
    """Return the server for one model; `settings` gives the key, the requested host and the device.

    Message batches are answered while its lifespan is entered (`app.router.lifespan_context`),
    which must lie within the engine's block.
    """
    model = model.with_settings(settings)
    files, batches = FileStore(settings.paths.files), BatchStore(settings.paths.batches)
    registry = BatchRegistry(batches)
    generated_answers = GeneratedAnswers()
    answer_store = _answer_store(settings, model, generated_answers)
    pipeline = _pipeline(engine, model, files, generated_answers)
    completer = Completer(engine, model, generated_answers.add)
    sessions = Sessions(model.tokenizer.neutralize)
    parts = parts or AppParts()
    writer = AnswerWriter(parts.ping_interval, settings.show_content)
    messages = MessagesEndpoint(pipeline, completer, sessions, writer)
    stored_responses = ResponseStore(settings.paths.responses)
    responses = ResponsesEndpoint(pipeline, completer, sessions, writer, stored_responses)
    limiter = KeyLimiter(settings.paths.key_usage_file)
    batch_worker = BatchWorker(registry, messages.answer_batched, parts.activity, limiter)
    health = HealthEndpoint(engine, model, settings, sessions)
    metrics = MetricsEndpoint(engine, settings.device or "")
    parts.activity.listen(metrics.requests)
    table = operations(
        Endpoints(
            messages,
            ChatEndpoint(pipeline, completer, sessions, writer),
            CompletionsEndpoint(pipeline, completer, writer),
            responses,
            BatchesEndpoint(registry),
            ModelsEndpoint(engine, model),
            FilesEndpoint(files),
            health,
            ActivityEndpoint(parts.activity, health.report, FindingsCache(parts.find), parts.log),
            metrics,
            PageEndpoint(),
        )
    )

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        with closing(files), closing(batches):
            async with answer_store.open(), stored_responses.open(), batch_worker.working():
                yield
                await limiter.save()

    return _application(table, _middleware(settings, table, parts, limiter), lifespan)


def _pipeline(
    engine: Engine, model: ServedModel, files: FileStore, answers: GeneratedAnswers
) -> RequestPipeline:
    decoder, sight = Decoder(), model.sight
    pages = sight and PageReader(sight, decoder)
    return RequestPipeline(
        engine,
        model,
        DocumentReader(files.read, decoder.pdf_pages, pages),
        answers,
        sight and PictureReader(sight, files.read, decoder.picture),
    )


def _answer_store(
    settings: Settings, model: ServedModel, answers: GeneratedAnswers
) -> GeneratedAnswerStore:
    return GeneratedAnswerStore(
        settings.paths.answers, model.folder, answers, model.tokenizer.has_token
    )


def _application(
    table: Sequence[Operation], middleware: Sequence[Middleware], lifespan: Lifespan[Starlette]
) -> Starlette:
    app = Starlette(
        routes=routes_of(table),
        middleware=middleware,
        exception_handlers={HTTPException: routing_error},
        lifespan=lifespan,
    )
    # A redirect would be built from the Host header.
    app.router.redirect_slashes = False
    return app


def _middleware(
    settings: Settings, table: Sequence[Operation], parts: AppParts, limiter: KeyLimiter
) -> list[Middleware]:
    # From the outside in: access is decided by the path as sent, before anything is read.
    public_paths = [operation.path for operation in table if operation.is_public]
    access = access_of(settings, public_paths, parts.certificate_names)
    ring = KeyRing(settings.paths.keys_file)
    return [
        Middleware(RequestMiddleware, target_of=targets_of(table), activity=parts.activity),
        Middleware(AccessMiddleware, access=access, keys=ring, limiter=limiter),
        Middleware(CORSMiddleware),
        Middleware(BaseURLMiddleware),
        Middleware(BodyAdmission, budget=parts.budget),
    ]
