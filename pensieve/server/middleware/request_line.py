"""The log's line of a request, as text and as fields.

Never a body, a key or a query; of a path only known segments, and of the client's own text only its
id of the request.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pensieve.server.activity.record import RequestRecord

# Path segments of this API, and those that reveal for which other API a client takes this server.
KNOWN_SEGMENTS = frozenset(
    [
        "activity",
        "api",
        "batches",
        "beta",
        "cancel",
        "chat",
        "complete",
        "completions",
        "content",
        "count_tokens",
        "embeddings",
        "favicon.ico",
        "files",
        "generate",
        "health",
        "hello",
        "history",
        "input_items",
        "input_tokens",
        "messages",
        "metrics",
        "models",
        "openapi.json",
        "ps",
        "rerank",
        "responses",
        "results",
        "show",
        "tags",
        "v1",
        "v2",
        "version",
    ]
) | {""}
MAX_SEGMENTS = 8
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_ID = re.compile(r"(?:file|msgbatch|resp)_01[0-9A-Za-z]{22}", re.ASCII)


@dataclass(frozen=True, slots=True)
class RequestLine:
    """Formatted only when it is written (`logs.Fields`)."""

    method: str
    path: str
    record: RequestRecord

    def __str__(self) -> str:
        record = self.record
        outcome = (
            f"{record.status or '-'}{' in mid-stream' if record.is_broken_off else ''}"
            f"{' client left' if record.is_client_gone else ''}"
        )
        key = f", key {record.key_name}" if record.key_name else ""
        named = f", x-request-id {record.client_id}" if record.client_id else ""
        return (
            f"{self._method} {redact_path(self.path)}: {outcome} in {_ms(record.total_s)}"
            f"{_tokens_text(record)}{key}{named}"
        )

    @property
    def fields(self) -> Mapping[str, object]:
        record = self.record
        common = {
            "method": self._method,
            "path": redact_path(self.path),
            "status": record.status,
            "is_broken_off": record.is_broken_off,
            "is_client_gone": record.is_client_gone,
            "client_request_id": record.client_id,
            **({"key": record.key_name} if record.key_name else {}),
            "total_s": _rounded(record.total_s),
        }
        if record.prompt_tokens is None:
            return common
        drafts = record.drafts.total
        return {
            **common,
            "wire": record.wire,
            "priority": record.priority,
            "is_streamed": record.is_streamed,
            **{f"{phase}_s": _rounded(seconds) for phase, seconds in record.phase_s.items()},
            "first_token_s": _rounded(record.first_token_s),
            "prompt_tokens": record.prompt_tokens,
            "cached_tokens": record.cached_tokens,
            "output_tokens": record.output_tokens,
            "drafted": drafts.drafted,
            "accepted": drafts.accepted,
        }

    @property
    def _method(self) -> str:
        return self.method if self.method in METHODS else "*"


def redact_path(path: str) -> str:
    """Return `path` with `*` for each segment that could be a misplaced secret.

    Ids stay: they are random and the server's own.
    """
    segments = path.split("/")[:MAX_SEGMENTS]
    return "/".join(
        segment if segment in KNOWN_SEGMENTS or _ID.fullmatch(segment) else "*"
        for segment in segments
    )


def _tokens_text(record: RequestRecord) -> str:
    is_answer = record.status == 200 or record.is_broken_off
    if not is_answer or (prompt := record.prompt_tokens) is None:
        return ""
    cached = record.cached_tokens or 0
    first = record.first_token_s
    return (
        f", {prompt - cached} new + {cached} cached tokens in, {record.output_tokens} out"
        f"{_drafts_text(record)}"
        f", queued {_ms(record.phase_s['queued'])}, prompt {_ms(record.phase_s['prompt'])}"
        f"{'' if first is None else f', first token after {_ms(first)}'}"
    )


def _drafts_text(record: RequestRecord) -> str:
    used = [
        f"{counts.accepted} of {counts.drafted} {source}"
        for source, counts in record.drafts.by_source.items()
        if counts.drafted
    ]
    if not used:
        return ""
    speed = record.drafts.tokens_per_step(record.output_tokens)
    return f" ({speed:.1f} tokens a step, drafts accepted: {', '.join(used)})"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
