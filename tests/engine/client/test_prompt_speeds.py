"""How fast machines process prompts, next to each other."""

from pensieve.engine.client.prompt_speeds import MAX_FIGURES, MAX_SLOWDOWN, PromptSpeeds


def speeds_of(**figures: list[float]) -> PromptSpeeds:
    speeds = PromptSpeeds()
    for host, of_host in figures.items():
        for figure in of_host:
            speeds.note(host, figure)
    return speeds


def test_machine_is_slower_by_the_middle_of_its_figures() -> None:
    # 10: of a prompt of a few tokens.
    speeds = speeds_of(fast=[1000.0, 990.0, 1010.0], slow=[500.0, 10.0, 510.0])
    assert (speeds.slowdown("fast"), speeds.slowdown("slow")) == (1.0, 2.0)


def test_machine_without_a_figure_counts_as_fast() -> None:
    speeds = speeds_of(measured=[100.0], asleep=[0.0])
    assert (speeds.slowdown("asleep"), speeds.slowdown("unheard of")) == (1.0, 1.0)


def test_machines_that_differ_little_count_as_equal() -> None:
    speeds = speeds_of(one=[1000.0], other=[760.0])
    assert (speeds.slowdown("one"), speeds.slowdown("other")) == (1.0, 1.0)


def test_old_figures_are_forgotten_and_repeated_ones_are_not_new() -> None:
    speeds = speeds_of(fast=[1000.0], other=[100.0, *range(991, 991 + MAX_FIGURES)])
    assert speeds.slowdown("other") == 1.0
    assert speeds_of(fast=[1000.0], other=[100.0, *[500.0] * 9]).slowdown("other") == 1000 / 300


def test_slowdown_is_limited() -> None:
    assert speeds_of(fast=[10_000.0], slow=[1.0]).slowdown("slow") == MAX_SLOWDOWN
