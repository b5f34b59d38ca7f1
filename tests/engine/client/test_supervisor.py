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


def test_the_pause_doubles_while_deaths_follow_each_other() -> None:
    policy = RestartPolicy()
    pauses = [policy.pause_after_death(now_s, KILLED) for now_s in (0, 1, 2, 3)]
    assert pauses == [0.5, 1.0, 2.0, 4.0]


def test_a_worker_that_lived_well_starts_the_count_anew() -> None:
    policy = RestartPolicy()
    moments = (0, 100, 200, 300, 400, 500)
    assert [policy.pause_after_death(now_s, KILLED) for now_s in moments] == [0.5] * 6


def test_a_crash_loop_is_given_up() -> None:
    policy = RestartPolicy()
    pauses = [policy.pause_after_death(now_s, KILLED) for now_s in range(DEATHS_OF_A_CRASH_LOOP)]
    assert pauses[-1] is None
    assert all(pause is not None and pause <= MAX_PAUSE_S for pause in pauses[:-1])


def far_apart(policy: RestartPolicy, *deaths: Death) -> list[float | None]:
    moments = [index * 10 * CRASH_LOOP_S for index in range(len(deaths))]
    assert all(later - earlier > CRASH_LOOP_S for earlier, later in pairwise(moments))
    return [policy.pause_after_death(*each) for each in zip(moments, deaths, strict=True)]


def test_deaths_of_one_cause_without_an_answer_in_between_are_given_up_however_far_apart() -> None:
    pauses = far_apart(RestartPolicy(), *[IN_PREFILL] * DEATHS_OF_A_CRASH_LOOP)
    assert pauses == [0.5] * (DEATHS_OF_A_CRASH_LOOP - 1) + [None]


def test_deaths_of_other_causes_do_not_add_up() -> None:
    few = DEATHS_OF_A_CRASH_LOOP - 1
    assert None not in far_apart(RestartPolicy(), *[IN_PREFILL] * few, *[IN_DECODE] * few)


def test_a_finished_answer_starts_the_count_of_causes_anew() -> None:
    policy = RestartPolicy()
    few = [IN_PREFILL] * (DEATHS_OF_A_CRASH_LOOP - 1)
    before = far_apart(policy, *few)
    policy.note_finished()
    policy.deaths_s.clear()
    assert far_apart(policy, *few) == before
