"""When a dead worker is restarted, and when that is given up."""

from itertools import pairwise

from pensieve.engine.client.supervisor import (
    CRASH_LOOP_S,
    DEATHS_OF_A_CRASH_LOOP,
    MAX_PAUSE_S,
    Death,
    RestartPolicy,
)

KILLED = Death("It was killed.")
IN_PREFILL = Death("It aborted.", "prefill, signal 6")
IN_DECODE = Death("It aborted.", "decode, signal 6")


def test_pause_doubles_with_each_death_in_a_row() -> None:
    policy = RestartPolicy()
    pauses = [policy.pause_after_death(now_s, KILLED) for now_s in (0, 1, 2, 3)]
    assert pauses == [0.5, 1.0, 2.0, 4.0]


def test_pause_starts_over_after_a_minute_without_a_death() -> None:
    policy = RestartPolicy()
    moments = (0, 100, 200, 300, 400, 500)
    assert [policy.pause_after_death(now_s, KILLED) for now_s in moments] == [0.5] * 6


def test_five_deaths_within_a_minute_end_the_restarts() -> None:
    policy = RestartPolicy()
    pauses = [policy.pause_after_death(now_s, KILLED) for now_s in range(DEATHS_OF_A_CRASH_LOOP)]
    assert pauses[-1] is None
    assert all(pause is not None and pause <= MAX_PAUSE_S for pause in pauses[:-1])


def test_only_the_death_of_an_idle_worker_is_remembered_as_one() -> None:
    policy = RestartPolicy()
    far_apart(policy, IN_PREFILL, IN_DECODE)
    assert not policy.has_died_idle
    far_apart(policy, KILLED)
    policy.note_finished()
    assert policy.has_died_idle


def far_apart(policy: RestartPolicy, *deaths: Death) -> list[float | None]:
    moments = [index * 10 * CRASH_LOOP_S for index in range(len(deaths))]
    assert all(later - earlier > CRASH_LOOP_S for earlier, later in pairwise(moments))
    return [policy.pause_after_death(*each) for each in zip(moments, deaths, strict=True)]


def test_five_deaths_of_one_cause_end_the_restarts_however_far_apart() -> None:
    pauses = far_apart(RestartPolicy(), *[IN_PREFILL] * DEATHS_OF_A_CRASH_LOOP)
    assert pauses == [0.5] * (DEATHS_OF_A_CRASH_LOOP - 1) + [None]


def test_deaths_of_different_causes_do_not_add_up() -> None:
    few = DEATHS_OF_A_CRASH_LOOP - 1
    assert None not in far_apart(RestartPolicy(), *[IN_PREFILL] * few, *[IN_DECODE] * few)


def test_finished_answer_resets_the_count_of_causes() -> None:
    policy = RestartPolicy()
    few = [IN_PREFILL] * (DEATHS_OF_A_CRASH_LOOP - 1)
    before = far_apart(policy, *few)
    policy.note_finished()
    policy.deaths_s.clear()
    assert far_apart(policy, *few) == before


def test_another_machine_is_tried_again_for_ever_after_growing_pauses() -> None:
    policy = RestartPolicy()
    pauses = [policy.pause_after_death(number, Death("gone", kind="host")) for number in range(20)]
    assert pauses[:3] == [0.5, 1.0, 2.0]
    assert pauses[-1] == MAX_PAUSE_S
    assert not policy.has_died_idle
    assert policy.pause_after_death(20, IN_DECODE) == 0.5
