"""The JSON of `GET /activity` and of the requests in `GET /activity/history`.

Names of sessions are hashed, and programs are named from a bounded list: nothing here is a client's
own text. The names of keys are the administrator's.
"""

from collections.abc import Callable
from dataclasses import asdict
from hashlib import blake2b
from typing import Any

from pensieve.server.activity.record import RequestRecord

# The beginnings of the `User-Agent` of programs, in lower case.
_CLIENTS = {
    "claude-cli/": "claude-code",
    "codex": "codex",
    "opencode/": "opencode",
    "pensieve-chat/": "pensieve-chat",
    "pensieve": "pensieve",
    "zed/": "zed",
    "anthropic/": "anthropic-sdk",
    "asyncanthropic/": "anthropic-sdk",
    "openai/": "openai-sdk",
    "asyncopenai/": "openai-sdk",
    "ai-sdk/": "ai-sdk",
    "curl/": "curl",
    "mozilla/": "browser",
}
OTHER = "other"
CLIENTS = (*dict.fromkeys(_CLIENTS.values()), OTHER)
SessionName = Callable[[str | None], str | None]


def client_of(user_agent: str) -> str:
    agent = user_agent.lower()
    return next((name for start, name in _CLIENTS.items() if agent.startswith(start)), OTHER)


def session_names(salt: bytes) -> SessionName:
    """Return a function that names sessions. The salt keeps short names from being guessed."""

    def name(session: str | None) -> str | None:
        if session is None:
            return None
        return blake2b(session.encode(errors="replace"), key=salt, digest_size=4).hexdigest()

    return name


def open_request(record: RequestRecord, name: SessionName) -> dict[str, Any]:
    return {
        **_origin(record, name),
        "is_streamed": record.is_streamed,
        "phase": record.phase,
        "age_s": _rounded(record.age_s),
        "prompt_tokens": record.prompt_tokens,
        "pictures": record.pictures,
        "cached_tokens": record.cached_tokens,
        "processed_tokens": record.processed_tokens,
        "prompt_tokens_per_second": _rounded(record.prompt_tokens_per_second),
        "remaining_s": _rounded(record.remaining_s),
        "output_tokens": record.output_tokens,
        "max_tokens": record.max_tokens,
        "tokens_per_second": _rounded(record.tokens_per_second),
    }


def ended_request(record: RequestRecord, name: SessionName) -> dict[str, Any]:
    drafts = record.drafts.total
    return {
        **_origin(record, name),
        "ended_at": _rounded(record.ended_at),
        "status": record.status,
        "is_broken_off": record.is_broken_off,
        "is_client_gone": record.is_client_gone,
        "total_s": _rounded(record.total_s),
        "queue_s": _rounded(record.phase_s["queued"]),
        "prompt_s": _rounded(record.phase_s["prompt"]),
        "first_token_s": _rounded(record.first_token_s),
        "answer_s": _rounded(record.phase_s["answer"]),
        "prompt_tokens": record.prompt_tokens,
        "pictures": record.pictures,
        "cached_tokens": record.cached_tokens,
        "output_tokens": record.output_tokens,
        "tokens_per_second": _rounded(record.tokens_per_second),
        "drafted": drafts.drafted,
        "accepted": drafts.accepted,
        "diverged_at": record.diverged_at,
        "content": asdict(record.content) if record.content else None,
    }


def _origin(record: RequestRecord, name: SessionName) -> dict[str, Any]:
    return {
        "id": record.id,
        "route": record.route,
        "wire": record.wire,
        "client": client_of(record.user_agent),
        "key": record.key_name or None,
        "session": name(record.session),
        "priority": record.priority,
    }


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 3)
