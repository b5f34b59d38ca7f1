from pensieve.engine.supervision import DEATHS_OF_A_CRASH_LOOP, LONGEST_PAUSE_S, RestartPolicy


def test_the_pause_doubles_while_deaths_follow_each_other() -> None:
    policy = RestartPolicy()
    pauses = [policy.pause_after_death(now_s) for now_s in (0, 1, 2, 3)]
    assert pauses == [0.5, 1.0, 2.0, 4.0]


def test_a_worker_that_lived_well_starts_the_count_anew() -> None:
    policy = RestartPolicy()
    assert [policy.pause_after_death(now_s) for now_s in (0, 100, 200, 300, 400, 500)] == [0.5] * 6


def test_a_crash_loop_is_given_up() -> None:
    policy = RestartPolicy()
    pauses = [policy.pause_after_death(now_s) for now_s in range(DEATHS_OF_A_CRASH_LOOP)]
    assert pauses[-1] is None
    assert all(pause is not None and pause <= LONGEST_PAUSE_S for pause in pauses[:-1])
