"""What ranks tell each other, and what ends them, over socket pairs. No MLX."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

import pytest

from pensieve.engine.ranks.wire import (
    DIVERGED,
    PEER_GONE,
    PEER_SILENT,
    STUCK,
    STUCK_S,
    Follower,
    Lead,
    Peer,
    Progress,
    RankFailedError,
)

WAIT_S = 10


class LeftError(Exception):
    pass


class Rank:
    """One end of a wire. left: the codes with which its process would have ended."""

    def __init__(self, end: socket.socket, clock: Any = time.monotonic) -> None:
        self.end = end
        self.left = SimpleQueue[int]()
        self.progress = Progress(clock)
        self.peer = Peer(
            "mac-b", os.dup(end.fileno()), os.dup(end.fileno()), self.progress, self.leave
        )

    def leave(self, code: int, reason: str) -> None:
        self.left.put(code)
        if threading.current_thread() is threading.main_thread():
            raise LeftError(reason)

    def lead(self) -> Lead:
        return Lead([self.peer], self.progress, self.leave)

    def follower(self) -> Follower:
        return Follower(self.peer, self.progress, self.leave)


@pytest.fixture
def pair() -> Iterator[tuple[Rank, Rank]]:
    ends = socket.socketpair()
    try:
        yield Rank(ends[0]), Rank(ends[1])
    finally:
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def test_what_rank_0_decides_the_others_hear(pair: tuple[Rank, Rank]) -> None:
    lead, follower = pair[0].lead(), pair[1].follower()
    values: list[Any] = [1.25, "x", [1, None, {"a": 2}], True, 0.1 + 0.2]
    assert [lead.decide("word", lambda value=value: value) for value in values] == values
    assert [follower.decide("word", pytest.fail) for _ in values] == values


def test_least_is_the_same_for_all(pair: tuple[Rank, Rank]) -> None:
    lead, follower = pair[0].lead(), pair[1].follower()
    with ThreadPoolExecutor(1) as pool:
        for own, other in ((3, 5), (5, 3), (-1, 0)):
            heard = pool.submit(follower.least, "tokens", other)
            assert lead.least("tokens", own) == min(own, other)
            assert heard.result(WAIT_S) == min(own, other)


def test_another_word_than_expected_ends_a_follower(pair: tuple[Rank, Rank]) -> None:
    pair[0].lead().decide("frames", list)
    with pytest.raises(LeftError, match="0 'frames' instead of 0 'clock'"):
        pair[1].follower().decide("clock", pytest.fail)
    assert pair[1].left.get(timeout=WAIT_S) == DIVERGED


def test_a_word_that_was_lost_ends_a_follower(pair: tuple[Rank, Rank]) -> None:
    lead, follower = pair[0].lead(), pair[1].follower()
    for _ in range(2):
        lead.decide("clock", lambda: 1.0)
    pair[1].peer.receive()
    with pytest.raises(LeftError, match="1 'clock' instead of 0 'clock'"):
        follower.decide("clock", pytest.fail)


def test_a_follower_that_is_elsewhere_ends_rank_0(pair: tuple[Rank, Rank]) -> None:
    pair[1].peer.send(["is read", 1])
    with pytest.raises(LeftError, match="mac-b is at 'is read', this one at 'tokens'"):
        pair[0].lead().least("tokens", 1)


def test_a_follower_that_cannot_load_is_named_with_its_reason(pair: tuple[Rank, Rank]) -> None:
    pair[1].follower().fail("its weights take 9 GB")
    with pytest.raises(RankFailedError, match="mac-b: its weights take 9 GB"):
        pair[0].lead().least("kv bytes", 1)


def test_the_end_of_a_rank_ends_the_others(pair: tuple[Rank, Rank]) -> None:
    pair[1].end.shutdown(socket.SHUT_RDWR)
    assert pair[0].left.get(timeout=WAIT_S) == PEER_GONE


def test_lines_that_are_no_words_end_a_rank(pair: tuple[Rank, Rank]) -> None:
    pair[1].end.sendall(b"no json\n")
    assert pair[0].left.get(timeout=WAIT_S) == DIVERGED


def test_a_silent_rank_ends_the_others() -> None:
    own, other = socket.socketpair()
    with own, other:
        rank = Rank(own)
        rank.peer.silence_s = 0.2
        assert rank.left.get(timeout=WAIT_S) == PEER_SILENT


def test_a_stopped_rank_whose_pipe_is_full_ends_the_others() -> None:
    own, stopped = socket.socketpair()
    with own, stopped:
        rank = Rank(own)
        rank.peer.silence_s = 1.0
        blocked = threading.Thread(target=rank.peer.send, args=["x" * 10_000_000], daemon=True)
        blocked.start()
        assert rank.left.get(timeout=WAIT_S) == PEER_SILENT
        assert blocked.is_alive()
        stopped.shutdown(socket.SHUT_RDWR)
        blocked.join(WAIT_S)


def test_heartbeats_keep_ranks_alive(pair: tuple[Rank, Rank]) -> None:
    for rank in pair:
        rank.peer.silence_s = 1.5
    lead, follower = pair[0].lead(), pair[1].follower()
    with ThreadPoolExecutor(1) as pool:
        heard = pool.submit(follower.decide, "frames", pytest.fail)
        lead.decide("frames", lambda: time.sleep(2.0))
        assert heard.result(WAIT_S) is None
    assert pair[0].left.empty()
    assert pair[1].left.empty()


def test_a_rank_without_progress_ends_though_its_heart_beats() -> None:
    now_s = [100.0]
    own, other = socket.socketpair()
    with own, other:
        rank = Rank(own, lambda: now_s[0])
        rank.progress.work()
        now_s[0] += STUCK_S + 1
        assert rank.left.get(timeout=WAIT_S) == STUCK


def test_progress_allows_what_was_announced_and_any_rest() -> None:
    now_s = [100.0]
    progress = Progress(lambda: now_s[0])
    progress.expect(120)
    progress.work()
    now_s[0] += 120 + STUCK_S - 1
    assert not progress.is_late
    now_s[0] += 2
    assert progress.is_late
    progress.rest()
    assert not progress.is_late


def test_after_the_last_request_the_end_of_another_rank_is_expected(
    pair: tuple[Rank, Rank],
) -> None:
    lead, follower = pair[0].lead(), pair[1].follower()
    lead.wait_closed()
    for wire in (lead, follower):
        wire.end()
    with ThreadPoolExecutor(1) as pool:
        closed = pool.submit(follower.wait_closed)
        lead.wait_closed()
        closed.result(WAIT_S)
    pair[1].end.shutdown(socket.SHUT_RDWR)
    time.sleep(0.1)
    assert pair[0].left.empty()
