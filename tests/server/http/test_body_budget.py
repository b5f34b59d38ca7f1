"""Large bodies wait for each other within a budget, small ones never; cancelling releases bytes."""

from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import httpx
import pytest

from pensieve.errors import EngineBusyError
from pensieve.server.app import AppParts
from pensieve.server.http.request_body import SMALL_BYTES, BodyBudget
from tests.server.serving import CALL, app_of, in_memory
from tests.support.fakes import ScriptedEngine, says

pytestmark = pytest.mark.anyio
LARGE = 3 * SMALL_BYTES


class Holder:
    """Reserves bytes until `release` is set."""

    def __init__(self, budget: BodyBudget, nbytes: int) -> None:
        self.budget, self.nbytes = budget, nbytes
        self.is_in = self.is_refused = False  # is_in: its bytes are reserved
        self.release = anyio.Event()

    async def __call__(self) -> None:
        try:
            async with self.budget.reserve(self.nbytes):
                self.is_in = True
                await self.release.wait()
        except EngineBusyError:
            self.is_refused = True


async def settled() -> None:
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


async def test_large_bodies_wait_in_order_and_small_ones_pass() -> None:
    budget = BodyBudget(max_bytes=2 * LARGE)
    holders = [Holder(budget, LARGE) for _ in range(4)]
    small = Holder(budget, SMALL_BYTES)
    async with anyio.create_task_group() as tasks:
        for holder in (*holders, small):
            tasks.start_soon(holder)
            await settled()
        assert [holder.is_in for holder in holders] == [True, True, False, False]
        assert small.is_in
        assert budget.reserved_bytes == 2 * LARGE
        holders[1].release.set()
        await settled()
        assert [holder.is_in for holder in holders] == [True, True, True, False]
        for holder in (*holders, small):
            holder.release.set()
    assert holders[3].is_in
    assert budget.reserved_bytes == 0


async def test_body_larger_than_budget_is_admitted_alone() -> None:
    budget = BodyBudget(max_bytes=LARGE)
    first, giant, last = (Holder(budget, size) for size in (LARGE, 50 * LARGE, LARGE))
    async with anyio.create_task_group() as tasks:
        for holder in (first, giant, last):
            tasks.start_soon(holder)
            await settled()
        first.release.set()
        await settled()
        assert (giant.is_in, last.is_in) == (True, False)
        giant.release.set()
        await settled()
        assert last.is_in
        last.release.set()


async def test_body_that_waits_too_long_is_refused_as_busy() -> None:
    budget = BodyBudget(max_bytes=LARGE, timeout_s=0)
    async with budget.reserve(LARGE):
        with pytest.raises(EngineBusyError):
            async with budget.reserve(LARGE):
                pass
    assert budget.reserved_bytes == 0
    async with budget.reserve(LARGE):
        assert budget.reserved_bytes == LARGE


async def test_cancelled_wait_does_not_block_others() -> None:
    budget = BodyBudget(max_bytes=LARGE)
    first, leaving, last = Holder(budget, LARGE), Holder(budget, 9 * LARGE), Holder(budget, LARGE)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first)
        async with anyio.create_task_group() as waiting:
            waiting.start_soon(leaving)
            await settled()
            tasks.start_soon(last)
            await settled()
            # Admitted and cancelled at the same moment.
            first.release.set()
            waiting.cancel_scope.cancel()
        await settled()
        assert last.is_in
        last.release.set()
    assert budget.reserved_bytes == 0


async def test_reservation_shrinks_to_actual_size() -> None:
    budget = BodyBudget(max_bytes=10 * LARGE)
    async with budget.reserve(5 * LARGE) as reservation:
        reservation.resize(LARGE)
        assert budget.reserved_bytes == LARGE
        reservation.resize(SMALL_BYTES)
        assert budget.reserved_bytes == 0
    assert budget.reserved_bytes == 0


async def pieces(total: int) -> AsyncIterator[bytes]:
    for _ in range(total // 65536):
        yield b" " * 65536


@pytest.mark.parametrize("is_announced", [True, False])
async def test_large_request_is_answered_if_it_fits_and_refused_otherwise(
    *, is_announced: bool
) -> None:
    budget = BodyBudget(max_bytes=LARGE, timeout_s=0)
    content = b" " * LARGE if is_announced else pieces(LARGE)
    json_type = {"content-type": "application/json"}
    async with in_memory(
        app_of(ScriptedEngine([says("ok")]), parts=AppParts(budget=budget))
    ) as client:
        async with budget.reserve(LARGE):
            busy: httpx.Response = await client.post(
                "/v1/messages", content=content, headers=json_type
            )
            small = await client.post("/v1/messages", json=CALL)
        content = b" " * LARGE if is_announced else pieces(LARGE)
        read = await client.post("/v1/messages", content=content, headers=json_type)
    assert (busy.status_code, busy.json()["error"]["type"]) == (529, "overloaded_error")
    assert busy.headers["retry-after"]
    assert small.status_code == 200
    assert read.status_code == 400
    assert budget.reserved_bytes == 0
