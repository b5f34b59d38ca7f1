"""`GET /health`: whether the server can answer now. No key needed.

200 if the model answers, also if it must be loaded first after idling; 503 while it loads or has
failed.
"""

import os
from dataclasses import asdict
from typing import Any

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

import pensieve
from pensieve.engine.generation import Engine, EngineHealth
from pensieve.models.served_model import ServedModel
from pensieve.peer_proof import CHALLENGE_HEADER, PROOF_FIELD, Prover
from pensieve.server.messages.sessions import Sessions
from pensieve.server.middleware.request_context import request_context_of
from pensieve.settings.resolve import Settings


class HealthEndpoint:
    def __init__(
        self, engine: Engine, model: ServedModel, settings: Settings, sessions: Sessions
    ) -> None:
        self._engine = engine
        self._sessions = sessions
        self._model = model
        self._settings = settings
        self._prover = Prover(settings.api_key)

    async def health(self, request: Request) -> Response:
        """Return everything that `pensieve status` shows."""
        request_context_of(request.scope).is_poll = True
        report = self.report()
        if challenge := request.headers.get(CHALLENGE_HEADER):
            report[PROOF_FIELD] = await self._proof(challenge, request.scope)
        return JSONResponse(report, status_code=200 if self._engine.health.is_well else 503)

    def report(self) -> dict[str, Any]:
        health = self._engine.health
        return {
            "status": health.state,
            "model": self._model.name,
            "repo": self._model.repo,
            "context_tokens": health.context_of(self._model.context_tokens),
            "thinking": self._model.thinking,
            "detail": health.detail,
            "is_model_at_fault": health.is_model_at_fault,
            "restarts": health.restarts,
            "restarts_by_cause": health.restarts_by_cause,
            "sleeps": health.sleeps,
            "wakes": health.wakes,
            "poison_prompts": health.poison_prompts,
            "idle_unload": self._settings.idle_unload,
            "in_flight": health.in_flight,
            "engine": asdict(health.stats) if health.stats else None,
            "speculation": asdict(health.speculation) if health.speculation else None,
            "sampling": self._model.dialect.sampling.report(),
            "shows_content": self._settings.show_content,
            "diverged_prompts": self._sessions.diverged,
            "device": self._settings.device,
            "host": self._settings.hosts if self._settings.other_hosts else None,
            "version": pensieve.__version__,
            "pid": os.getpid(),
            **_replicas(health),
            **_ranks(self._settings),
        }

    async def _proof(self, challenge: str, scope: Scope) -> str:
        # In a thread: the first proof takes as long as generating some tokens.
        _, port = scope.get("server") or ("", 0)
        return await anyio.to_thread.run_sync(self._prover.proof, challenge, port or 0)


def _ranks(settings: Settings) -> dict[str, Any]:
    """Return the machines that share one model, if they do; rank 0 is this one."""
    if not settings.hostfile:
        return {}
    return {"ranks": [{"rank": at, "host": each} for at, each in enumerate(settings.remote_hosts)]}


def _replicas(health: EngineHealth) -> dict[str, Any]:
    """Return each engine's own figures if there are several."""
    if not health.replicas:
        return {}
    return {"replicas": [_replica(name, each) for name, each in health.replicas.items()]}


def _replica(name: str, health: EngineHealth) -> dict[str, Any]:
    stats = health.stats
    return {
        "name": name,
        "state": health.state,
        "detail": health.detail,
        "worker_pid": health.worker_pid,
        "in_flight": health.in_flight,
        "restarts": health.restarts,
        "context_tokens": health.context_tokens,
        "queued": stats.queued if stats else None,
        "running": stats.running if stats else None,
        "tokens_per_second": stats.tokens_per_second if stats else None,
        "memory_limit_bytes": stats.memory_limit_bytes if stats else None,
        "worker_bytes": stats.worker_bytes if stats else None,
    }
