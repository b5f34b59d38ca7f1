"""Which steps are announced, and with what timeout."""

from pensieve.engine.long_operations import MARGIN, StepAnnouncer, reading_s


class Announced(list[tuple[str, float]]):
    def __call__(self, work: str, timeout_s: float) -> None:
        self.append((work, timeout_s))


def test_chunk_is_announced_with_a_margin() -> None:
    announced = Announced()
    StepAnnouncer(announced).begin("processing 512 tokens", [512], 4.0)
    assert announced == [("processing 512 tokens", MARGIN * 4.0)]


def test_decode_step_with_compiled_kernels_is_not_announced() -> None:
    announced = Announced()
    announcer = StepAnnouncer(announced, compiling_s=120.0)
    announcer.begin("decoding 3 answers", [3], 0.0)
    announcer.begin("decoding 4 answers", [4], 0.0)
    assert announced == [("decoding 3 answers", 120.0)]


def test_each_new_size_adds_the_compile_time_once() -> None:
    announced = Announced()
    announcer = StepAnnouncer(announced, compiling_s=120.0)
    announcer.begin("a", [8, 2048, 0], 1.0)
    announcer.begin("b", [8, 512, 1], 1.0)
    announcer.begin("c", [5, 300, 1], 1.0)
    assert announced == [("a", 245.0), ("b", 125.0), ("c", 5.0)]


def test_announcer_with_a_prefix_shares_the_sizes_seen() -> None:
    announced = Announced()
    announcer = StepAnnouncer(announced, compiling_s=120.0)
    announcer.with_prefix("preparing kernels: ").begin("decoding 8 answers", [8], 0.0)
    announcer.begin("decoding 8 answers", [8], 0.0)
    assert announced == [("preparing kernels: decoding 8 answers", 120.0)]


def test_short_step_is_not_announced_if_nothing_compiles() -> None:
    announced = Announced()
    StepAnnouncer(announced).begin("decoding 8 answers", [8], 0.0)
    assert announced == []


def test_timeout_of_a_large_weights_part_allows_for_a_slow_disk() -> None:
    assert reading_s(1000) == 60.0
    assert reading_s(10**9) == 200.0
