"""Limits of a named key: what is refused, with which headers, and what is counted."""

import re
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pensieve.credentials.key_usage import KeyUsage, day_of, read_usage
from pensieve.credentials.named_keys import KeyLimits, NamedKey
from pensieve.engine.generation import Admitted, Finished, Prefilled, Started, Token
from pensieve.errors import RateLimitedError, TokensSpentError
from pensieve.server.activity.registry import Activity
from pensieve.server.keys.limits import SAVE_INTERVAL_S, KeyLimiter
from tests.server.keys.team import team_of
from tests.server.serving import CALL
from tests.support.fakes import ScriptedEngine, says

NOON = 20_000 * 24 * 3600.0 + 12 * 3600
ANSWER = Activity().open("req_1", "/v1/messages", "anthropic", generates=True)
OTHER = Activity().open("req_2", "/v1/models", "anthropic", generates=False)


@dataclass
class Clock:
    now: float = NOON

    def __call__(self) -> float:
        return self.now


@dataclass
class Bench:
    """A limiter of one key."""

    file: Path
    concurrent: int = 0
    requests_per_minute: int = 0
    tokens_per_day: int = 0

    def __post_init__(self) -> None:
        self.clock = Clock()
        limits = KeyLimits(self.concurrent, self.requests_per_minute, self.tokens_per_day)
        self.key = NamedKey("anna", "", 0.0, limits)
        self.limiter = KeyLimiter(self.file, self.clock)

    def ask(self) -> None:
        with self.limiter.admitted(self.key, ANSWER):
            pass

    def refusal(self) -> RateLimitedError:
        with pytest.raises(RateLimitedError) as refused:
            self.ask()
        return refused.value

    def use(self, tokens: int) -> None:
        record = Activity().open("req_3", "/v1/messages", "anthropic", generates=True)
        record.output_tokens = tokens
        self.limiter.count_tokens("anna", record)


def test_as_many_requests_run_at_one_time_as_the_limit_says(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "usage", concurrent=2)
    with ExitStack() as running:
        for _ in range(2):
            running.enter_context(bench.limiter.admitted(bench.key, ANSWER))
        refusal = bench.refusal()
    assert (refusal.retry_after_s, refusal.should_retry) == (2, True)
    assert refusal.message.endswith("of the key anna: 2 requests at one time.")
    bench.ask()


def test_request_that_fails_gives_its_place_back(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "usage", concurrent=1)
    for _ in range(3):
        with pytest.raises(KeyError), bench.limiter.admitted(bench.key, ANSWER):
            raise KeyError


def test_requests_of_a_minute_are_refilled_one_by_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "usage", requests_per_minute=6)
    for _ in range(6):
        bench.ask()
    assert bench.refusal().retry_after_s == 10
    bench.clock.now += 9
    assert bench.refusal().retry_after_s == 1
    bench.clock.now += 1
    bench.ask()
    assert bench.refusal().retry_after_s == 10


@given(st.lists(st.floats(-100, 100)), st.integers(1, 100))
def test_no_clock_gives_more_requests_than_the_limit(jumps: list[float], limit: int) -> None:
    bench = Bench(Path("/nowhere/usage"), requests_per_minute=limit)
    forward = 0.0
    accepted = 0
    latest = bench.clock.now
    for jump in [*jumps, *[0.0] * limit]:
        bench.clock.now += jump
        forward += max(0.0, bench.clock.now - latest)
        latest = bench.clock.now
        try:
            bench.ask()
        except RateLimitedError:
            continue
        accepted += 1
    assert accepted <= limit + forward * limit / 60 + 1e-6


def test_tokens_of_a_day_are_spent_until_midnight(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "usage", tokens_per_day=100)
    bench.use(99)
    bench.ask()
    bench.use(1)
    refusal = bench.refusal()
    assert isinstance(refusal, TokensSpentError)
    assert (refusal.retry_after_s, refusal.should_retry) == (12 * 3600, False)
    bench.clock.now += 12 * 3600
    bench.ask()


def test_requests_that_generate_nothing_are_not_limited(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "usage", concurrent=1, requests_per_minute=1)
    bench.ask()
    with bench.limiter.admitted(bench.key, OTHER), bench.limiter.admitted(bench.key, OTHER):
        pass


def test_keys_are_limited_apart(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "usage", requests_per_minute=1)
    bench.ask()
    bench.key = NamedKey("ben", "", 0.0, bench.key.limits)
    bench.ask()


@pytest.mark.anyio
async def test_usage_is_written_once_a_minute_and_survives_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "usage"
    bench = Bench(file, tokens_per_day=10)
    bench.use(10)
    await bench.limiter.save_if_due()
    assert not file.exists()
    bench.clock.now += SAVE_INTERVAL_S
    await bench.limiter.save_if_due()
    assert read_usage(file) == {"anna": KeyUsage(NOON, day_of(NOON), 10)}
    again = Bench(file, tokens_per_day=10)
    assert isinstance(again.refusal(), TokensSpentError)


@pytest.mark.anyio
async def test_without_named_keys_nothing_is_written(tmp_path: Path) -> None:
    await Bench(tmp_path / "usage").limiter.save()
    assert list(tmp_path.iterdir()) == []


def spending(tokens: Iterable[object]) -> ScriptedEngine:
    return ScriptedEngine([list(tokens)])


@pytest.mark.anyio
async def test_tokens_of_a_prompt_count_without_cached_ones(tmp_path: Path) -> None:
    script = [Started(3), Admitted(), Prefilled(5), Token(ord("H")), Finished("stop_token", 2)]
    async with team_of(tmp_path, "anna", engine=ScriptedEngine([script])) as team:
        await team["anna"].post("/v1/messages", json=CALL)
        paths = team.paths
    # Two of the prompt, one of the answer and the stop token.
    assert read_usage(paths.key_usage_file)["anna"].tokens == 4


@pytest.mark.anyio
async def test_refusal_has_the_envelope_and_the_headers_of_each_wire(tmp_path: Path) -> None:
    limits = KeyLimits(requests_per_minute=1, tokens_per_day=1000)
    async with team_of(tmp_path, "anna", limits=limits) as team:
        accepted = await team["anna"].post("/v1/messages", json=CALL)
        refused = await team["anna"].post("/v1/messages", json=CALL)
        chat = {"model": "any", "messages": CALL["messages"]}
        other_wire = await team["anna"].post("/v1/chat/completions", json=chat)
        unlimited = await team[""].post("/v1/messages", json=CALL)
    assert (accepted.status_code, refused.status_code, other_wire.status_code) == (200, 429, 429)
    assert accepted.headers["anthropic-ratelimit-requests-limit"] == "1"
    assert accepted.headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert accepted.headers["anthropic-ratelimit-tokens-remaining"] == "1000"
    reset = accepted.headers["anthropic-ratelimit-tokens-reset"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", reset)
    body = refused.json()
    assert (body["type"], body["error"]["type"]) == ("error", "rate_limit_error")
    assert body["request_id"] == refused.headers["request-id"]
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert "x-should-retry" not in refused.headers
    assert refused.headers["anthropic-ratelimit-requests-remaining"] == "0"
    error = other_wire.json()["error"]
    assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")
    assert other_wire.headers["x-ratelimit-limit-requests"] == "1"
    assert re.fullmatch(r"\d+s", other_wire.headers["x-ratelimit-reset-requests"])
    assert not [name for name in unlimited.headers if "ratelimit" in name]


@pytest.mark.anyio
async def test_spent_day_tells_clients_not_to_wait(tmp_path: Path) -> None:
    limits = KeyLimits(tokens_per_day=1)
    async with team_of(tmp_path, "anna", limits=limits) as team:
        await team["anna"].post("/v1/messages", json=CALL)
        refused = await team["anna"].post("/v1/messages", json=CALL)
    assert (refused.status_code, refused.headers["x-should-retry"]) == (429, "false")
    assert refused.headers["anthropic-ratelimit-tokens-remaining"] == "0"


@pytest.mark.anyio
async def test_open_answers_of_a_key_count_until_they_end(tmp_path: Path) -> None:
    reached, opened = anyio.Event(), anyio.Event()
    engine = ScriptedEngine([[Started(0), reached.set, opened, *says("ok")[1:]]])
    limits = KeyLimits(concurrent=1)
    with anyio.fail_after(10):
        async with team_of(tmp_path, "anna", limits=limits, engine=engine) as team:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: team["anna"].post("/v1/messages", json=CALL))
                await reached.wait()
                refused = await team["anna"].post("/v1/messages", json=CALL)
                opened.set()
            accepted = await team["anna"].post("/v1/messages", json=CALL)
    assert (refused.status_code, accepted.status_code) == (429, 200)
