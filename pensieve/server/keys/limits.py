"""What each named key may still do: answers at one time, requests a minute, tokens a day.

One per server. Limits are checked when a request begins; the tokens of a day can so be exceeded by
the requests that run then. When a key was used last, and its tokens of the day, are written to disk
once a minute; the rest begins anew with the server.
"""

import logging
import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pensieve.credentials.key_usage import DAY_S, KeyUsage, day_of, read_usage, write_usage
from pensieve.credentials.named_keys import NamedKey
from pensieve.errors import RateLimitedError, TokensSpentError
from pensieve.server.activity.record import RequestRecord
from pensieve.worker_threads import run_in_thread

_log = logging.getLogger("pensieve.server")

MINUTE_S = 60.0
SAVE_INTERVAL_S = 60.0
# An answer takes seconds; clients that wait longer than that lose time.
BUSY_RETRY_S = 2


@dataclass(frozen=True, slots=True)
class Quota:
    """What is left of a limit, as rate-limit headers tell it."""

    kind: str  # requests or tokens
    limit: int
    remaining: int
    resets_in_s: float  # until all of it is there again


@dataclass(slots=True)
class _Account:
    usage: KeyUsage
    open: int = 0
    bucket: float = 0.0  # requests
    filled_at: float = -math.inf

    def requests_left(self, per_minute: int, now: float) -> float:
        """Refill the bucket: as many at once as in a minute, then one after the other."""
        if not per_minute:
            return 0.0
        # A clock that was set back gives nothing.
        gained = max(0.0, now - self.filled_at) * per_minute / MINUTE_S
        self.bucket = min(float(per_minute), self.bucket + gained)
        self.filled_at = now
        return self.bucket


class KeyLimiter:
    """Owns the accounts of all named keys. Used on the event loop alone."""

    def __init__(self, file: Path, clock: Callable[[], float] = time.time) -> None:
        self._file = file
        self._clock = clock
        self._accounts: dict[str, _Account] | None = None
        self._saved_at = clock()

    @contextmanager
    def admitted(self, key: NamedKey, record: RequestRecord) -> Generator[None]:
        """Count a request while the block lasts, and its tokens at the end.

        Only requests for answers are limited. Raises `RateLimitedError`, `TokensSpentError`.
        """
        account = self._account(key.name)
        if not record.generates:
            self._touch(account)
            yield
            return
        self._take(key, account)
        account.open += 1
        try:
            yield
        finally:
            account.open -= 1
            self.count_tokens(key.name, record)

    def quotas(self, key: NamedKey) -> Sequence[Quota]:
        """Return what is left of the limits of requests and tokens."""
        account, limits, now = self._account(key.name), key.limits, self._clock()
        quotas: list[Quota] = []
        if per_minute := limits.requests_per_minute:
            left = account.requests_left(per_minute, now)
            resets_in_s = (per_minute - left) * MINUTE_S / per_minute
            quotas.append(Quota("requests", per_minute, int(left), resets_in_s))
        if per_day := limits.tokens_per_day:
            remaining = max(0, per_day - account.usage.tokens_on(day_of(now)))
            quotas.append(Quota("tokens", per_day, remaining, _until_tomorrow(now)))
        return quotas

    def count_tokens(self, name: str, record: RequestRecord) -> None:
        """Count what an answer has cost: a prompt without its cached tokens, and the answer."""
        account = self._account(name)
        processed = (record.processed_tokens or 0) - (record.cached_tokens or 0)
        self._touch(account, max(0, processed) + record.output_tokens)

    async def save_if_due(self) -> None:
        if self._clock() - self._saved_at >= SAVE_INTERVAL_S:
            await self.save()

    async def save(self) -> None:
        """Write the usage; a full disk costs only its durability."""
        if self._accounts is None:
            return
        self._saved_at = self._clock()
        usage = {name: account.usage for name, account in self._accounts.items()}
        try:
            await run_in_thread(partial(write_usage, self._file, usage))
        except OSError as error:
            _log.warning("failed to write the usage of keys: %s", error)

    def _account(self, name: str) -> _Account:
        if self._accounts is None:  # with the first named key: most servers have none
            self._accounts = {
                each: _Account(usage) for each, usage in read_usage(self._file).items()
            }
        return self._accounts.setdefault(name, _Account(KeyUsage()))

    def _take(self, key: NamedKey, account: _Account) -> None:
        limits, now = key.limits, self._clock()
        left = account.requests_left(limits.requests_per_minute, now)
        if limits.tokens_per_day and account.usage.tokens_on(day_of(now)) >= limits.tokens_per_day:
            raise TokensSpentError(
                f"{_exceeds(key)}: {limits.tokens_per_day} tokens per day.",
                retry_after_s=math.ceil(_until_tomorrow(now)),
            )
        if limits.concurrent and account.open >= limits.concurrent:
            raise RateLimitedError(
                f"{_exceeds(key)}: {limits.concurrent} requests at one time.",
                retry_after_s=BUSY_RETRY_S,
            )
        if limits.requests_per_minute and left < 1:
            raise RateLimitedError(
                f"{_exceeds(key)}: {limits.requests_per_minute} requests per minute.",
                retry_after_s=math.ceil((1 - left) * MINUTE_S / limits.requests_per_minute),
            )
        account.bucket = max(0.0, left - 1)
        self._touch(account)

    def _touch(self, account: _Account, tokens: int = 0) -> None:
        now = self._clock()
        day = day_of(now)
        account.usage = KeyUsage(now, day, account.usage.tokens_on(day) + tokens)


def _exceeds(key: NamedKey) -> str:
    return f"This request would exceed a rate limit of the key {key.name}"


def _until_tomorrow(now: float) -> float:
    return DAY_S - now % DAY_S
