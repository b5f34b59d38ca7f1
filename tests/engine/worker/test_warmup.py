"""The steps of a warm-up, over a backend that counts."""

from dataclasses import dataclass, field

from pensieve.engine.worker.warmup import prompts_of, warm_up
from tests.engine.counting_backend import CountingBackend


@dataclass
class Recording(CountingBackend):
    """Records how many sequences decode in each step; each step takes `step_s`."""

    step_s: float = 0.0
    now_s: float = 0.0
    decoding: list[int] = field(default_factory=list)

    def step(self):
        self.decoding.append(sum(one.is_decoding for one in self.sequences.values()))
        self.now_s += self.step_s
        return super().step()

    def clock(self) -> float:
        return self.now_s


def test_warm_up_decodes_with_every_number_of_rows_and_closes_the_backend() -> None:
    backend = Recording(chunk=128)
    assert warm_up(backend, prompts_of(128, 8), 10.0, backend.clock) == 10
    assert backend.decoding == [0, 0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert backend.is_closed


def test_warm_up_of_a_model_without_batching_uses_one_row() -> None:
    backend = Recording(chunk=128)
    warm_up(backend, prompts_of(128, 1), 10.0, backend.clock)
    assert backend.decoding == [0, 0, 1]


def test_warm_up_ends_when_its_time_is_up() -> None:
    backend = Recording(chunk=128, step_s=46.0)
    assert warm_up(backend, prompts_of(128, 8), 100.0, backend.clock) == 3
    assert backend.is_closed
