"""Large bodies wait for each other within a budget, small ones never; whoever leaves gives back what was held."""

from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import httpx
import pytest

from pensieve.errors import EngineBusyError
from pensieve.server.http.body_budget import SMALL_BYTES, BodyBudget
from tests.fakes import ScriptedEngine, says
from tests.server.serving import CALL, app_of, in_memory

pytestmark = pytest.mark.anyio
LARGE = 3 * SMALL_BYTES


class Holder:
    """Holds a part of the budget until it is told to leave. is_in: it has its part."""

    def __init__(self, budget: BodyBudget, nbytes: int) -> None:
        self.budget, self.nbytes = budget, nbytes
        self.is_in = self.is_refused = False
        self.leave = anyio.Event()

    async def __call__(self) -> None:
        try:
            async with self.budget.hold(self.nbytes):
                self.is_in = True
                await self.leave.wait()
        except EngineBusyError:
            self.is_refused = True


async def settled() -> None:
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


async def test_large_bodies_wait_in_their_order_and_small_ones_do_not() -> None:
    budget = BodyBudget(max_bytes=2 * LARGE)
    holders = [Holder(budget, LARGE) for _ in range(4)]
    small = Holder(budget, SMALL_BYTES)
    async with anyio.create_task_group() as tasks:
        for holder in (*holders, small):
            tasks.start_soon(holder)
            await settled()
        assert [one.is_in for one in holders] == [True, True, False, False]
        assert small.is_in
        assert budget.held_bytes == 2 * LARGE
        holders[1].leave.set()
        await settled()
        assert [one.is_in for one in holders] == [True, True, True, False]
        for one in (*holders, small):
            one.leave.set()
    assert holders[3].is_in
    assert budget.held_bytes == 0


async def test_one_that_is_larger_than_all_of_it_is_let_in_alone() -> None:
    budget = BodyBudget(max_bytes=LARGE)
    first, giant, last = (Holder(budget, size) for size in (LARGE, 50 * LARGE, LARGE))
    async with anyio.create_task_group() as tasks:
        for holder in (first, giant, last):
            tasks.start_soon(holder)
            await settled()
        first.leave.set()
        await settled()
        assert (giant.is_in, last.is_in) == (True, False)
        giant.leave.set()
        await settled()
        assert last.is_in
        last.leave.set()


async def test_whoever_waits_too_long_is_told_that_the_server_is_busy() -> None:
    budget = BodyBudget(max_bytes=LARGE, patience_s=0)
    async with budget.hold(LARGE):
        with pytest.raises(EngineBusyError):
            async with budget.hold(LARGE):
                pass
    assert budget.held_bytes == 0
    async with budget.hold(LARGE):
        assert budget.held_bytes == LARGE


async def test_whoever_leaves_while_waiting_keeps_nobody_out() -> None:
    budget = BodyBudget(max_bytes=LARGE)
    first, leaving, last = Holder(budget, LARGE), Holder(budget, 9 * LARGE), Holder(budget, LARGE)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first)
        async with anyio.create_task_group() as waiting:
            waiting.start_soon(leaving)
            await settled()
            tasks.start_soon(last)
            await settled()
            # Let in and cancelled at the same moment.
            first.leave.set()
            waiting.cancel_scope.cancel()
        await settled()
        assert last.is_in
        last.leave.set()
    assert budget.held_bytes == 0


async def test_a_body_counts_as_what_it_is_once_it_is_here() -> None:
    budget = BodyBudget(max_bytes=10 * LARGE)
    async with budget.hold(5 * LARGE) as hold:
        hold.become(LARGE)
        assert budget.held_bytes == LARGE
        hold.become(SMALL_BYTES)
        assert budget.held_bytes == 0
    assert budget.held_bytes == 0


async def pieces(total: int) -> AsyncIterator[bytes]:
    for _ in range(total // 65536):
        yield b" " * 65536


@pytest.mark.parametrize("is_announced", [True, False])
async def test_a_large_request_is_answered_when_there_is_room_and_else_told_to_wait(
    *, is_announced: bool
) -> None:
    budget = BodyBudget(max_bytes=LARGE, patience_s=0)
    content = b" " * LARGE if is_announced else pieces(LARGE)
    json_type = {"content-type": "application/json"}
    async with in_memory(app_of(ScriptedEngine([says("ok")]), budget=budget)) as client:
        async with budget.hold(LARGE):
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
    assert budget.held_bytes == 0
