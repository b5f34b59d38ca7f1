"""Rate-limit headers, as Anthropic and OpenAI name them."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from pensieve.server.keys.limits import Quota

Header = tuple[bytes, bytes]


def anthropic_headers(quotas: Iterable[Quota], now: datetime | None = None) -> Sequence[Header]:
    now = now or datetime.now(UTC)
    values = (
        (f"anthropic-ratelimit-{quota.kind}-{name}", value)
        for quota in quotas
        for name, value in (
            ("limit", quota.limit),
            ("remaining", quota.remaining),
            ("reset", _rfc3339(now + timedelta(seconds=quota.resets_in_s))),
        )
    )
    return _encoded(values)


def openai_headers(quotas: Iterable[Quota]) -> Sequence[Header]:
    values = (
        (f"x-ratelimit-{name}-{quota.kind}", value)
        for quota in quotas
        for name, value in (
            ("limit", quota.limit),
            ("remaining", quota.remaining),
            ("reset", f"{quota.resets_in_s:.0f}s"),
        )
    )
    return _encoded(values)


def _encoded(values: Iterable[tuple[str, object]]) -> Sequence[Header]:
    return [(name.encode(), str(value).encode()) for name, value in values]


def _rfc3339(time: datetime) -> str:
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")
