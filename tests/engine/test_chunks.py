"""How large a chunk is: by time while others decode, by memory behind a long prompt. Plain numbers."""

import pytest

from pensieve.engine.chunks import SHARED_CHUNK_S, ChunkSizer, ScoresRoom


def test_alone_a_chunk_is_as_large_as_it_may_be() -> None:
    assert ChunkSizer(2048).next_chunk(100_000, is_shared=False) == 2048


def test_beside_others_a_chunk_takes_the_time_that_it_may_and_then_it_is_their_turn() -> None:
    sizer = ChunkSizer(2048)
    assert sizer.next_chunk(0, is_shared=True) == 16
    sizer.note_chunk(1000, 1.0, is_shared=False)
    assert sizer.next_chunk(0, is_shared=True) == SHARED_CHUNK_S * 1000 // 16 * 16
    sizer.note_chunk(240, 0.24, is_shared=True)
    assert sizer.next_chunk(240, is_shared=True) == 0
    sizer.note_decode(1.0)
    assert sizer.next_chunk(240, is_shared=True) > 0


@pytest.mark.parametrize("before", [0, 100, 5000, 16_000, 120_000])
def test_the_scores_of_a_chunk_fit_their_room(before: int) -> None:
    room = ScoresRoom(9 * 10**9, 32 * 18)
    chunk = ChunkSizer(2048, room).next_chunk(before, is_shared=False)
    assert chunk * (before + chunk) * room.pair_bytes <= room.nbytes
    larger = chunk + 2
    assert chunk == 2048 or larger * (before + larger) * room.pair_bytes > room.nbytes


def test_however_long_the_prompt_it_goes_on() -> None:
    sizer = ChunkSizer(2048, ScoresRoom(10**6, 32 * 18))
    assert sizer.next_chunk(1_000_000, is_shared=False) == 16
    assert sizer.next_chunk(1_000_000, is_shared=True) == 16
