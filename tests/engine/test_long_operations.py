"""What is announced before a step, and for how long the front end then waits."""

from pensieve.engine.long_operations import MARGIN, StepAnnouncer, reading_s


class Announced(list[tuple[str, float]]):
    def __call__(self, work: str, patience_s: float) -> None:
        self.append((work, patience_s))


def test_a_chunk_is_announced_with_a_margin() -> None:
    announced = Announced()
    StepAnnouncer(announced).begin("processing 512 tokens", [512], 4.0)
    assert announced == [("processing 512 tokens", MARGIN * 4.0)]


def test_a_decode_step_of_known_kernels_is_not_announced() -> None:
    announced = Announced()
    announcer = StepAnnouncer(announced, compiling_s=120.0)
    announcer.begin("decoding 3 answers", [3], 0.0)
    announcer.begin("decoding 4 answers", [4], 0.0)
    assert announced == [("decoding 3 answers", 120.0)]


def test_each_size_that_is_new_may_compile_its_kernels_once() -> None:
    announced = Announced()
    announcer = StepAnnouncer(announced, compiling_s=120.0)
    announcer.begin("a", [8, 2048, 0], 1.0)
    announcer.begin("b", [8, 512, 1], 1.0)
    announcer.begin("c", [5, 300, 1], 1.0)
    assert announced == [("a", 245.0), ("b", 125.0), ("c", 5.0)]


def test_what_was_prepared_is_known_to_who_prepared_it() -> None:
    announced = Announced()
    announcer = StepAnnouncer(announced, compiling_s=120.0)
    announcer.saying("preparing kernels: ").begin("decoding 8 answers", [8], 0.0)
    announcer.begin("decoding 8 answers", [8], 0.0)
    assert announced == [("preparing kernels: decoding 8 answers", 120.0)]


def test_on_a_processor_nothing_is_compiled_and_no_step_announced_for_that() -> None:
    announced = Announced()
    StepAnnouncer(announced).begin("decoding 8 answers", [8], 0.0)
    assert announced == []


def test_a_large_part_of_the_weights_may_come_from_a_slow_disk() -> None:
    assert reading_s(1000) == 60.0
    assert reading_s(10**9) == 200.0
