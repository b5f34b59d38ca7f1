"""No prefill chunk takes a third of the health check's timeout: every model of the catalog, on the
slowest Mac that holds it, at any context.

Prefill rates are of quantized models through MLX, in tokens a second:

- M1, a 9B model in 4 bits (5.95 GB): 100 at the start of a prompt, from 444 measured for a 2B
  model (mlx pull request 4505).
- Chips against an M1 by the operations a second of their GPUs.
- A model by its weights, as if each token needed all of them: mixtures of experts are two to five
  times faster (M2 Max: gpt-oss-20b 656 measured, 262 by this rule; Qwen3.6-35B-A3B 753 and 154).
- Dense models as measured (and by this rule): M4 Pro, 27B 116 (133); M2 Max and M2 Pro, Qwen3.5-9B
  397 and 166 (530 and 267); M2 Pro, Qwen3.8-27B 46.7 (99; rapid's benchmarks, 2026). `DERATE` is
  the largest of these differences.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from pensieve.engine.client.supervisor import HealthCheckPolicy
from pensieve.engine.long_operations import MARGIN, StepAnnouncer
from pensieve.engine.scheduling.prefill_chunks import (
    FIRST_CHUNK,
    LONE_CHUNK_S,
    METAL_PAIRS,
    ChunkSizer,
)
from pensieve.models.catalog.cards import CARDS, ModelCard

HEALTH_CHECKS = HealthCheckPolicy()
TIMEOUT_S = HEALTH_CHECKS.interval_s * HEALTH_CHECKS.max_missed
MAX_CHUNK = 2048
M1_RATE = 100.0
M1_RATE_BYTES = 5.95e9
DERATE = 0.47
# The slowest chip sold with that much memory: the memory that Metal allows a process (recorded by
# ggml on recent versions of macOS), and its prefill rate relative to an M1.
SLOWEST = {
    "M1, 8 GB": (5.73e9, 1.0),
    "M1, 16 GB": (12.71e9, 1.0),
    "M2, 24 GB": (19.07e9, 1.4),
    "M1 Pro, 32 GB": (26.80e9, 2.1),
    "M3 Pro, 36 GB": (30.15e9, 2.9),
    "M4 Pro, 48 GB": (40.20e9, 3.6),
    "M1 Max, 64 GB": (55.66e9, 4.2),
    "M2 Max, 96 GB": (86.0e9, 5.3),
    "M1 Ultra, 128 GB": (115.45e9, 8.3),
    "M3 Ultra, 512 GB": (470.0e9, 12.9),
}
# Preceding tokens that double the time of a token: phi-3-mini and qwen3-4b, and Qwen3.5 on M1 to M4
# (20, 30 and 40 s for a chunk after 0, 64k and 125k tokens).
DOUBLING = (14_000, 125_000)
CONTEXT = 262_144


@dataclass(frozen=True)
class Machine:
    tokens_per_s: float
    doubling_tokens: int
    pass_s: float = 0.1  # overhead of each pass, swapping included

    def seconds(self, tokens: int, before: int) -> float:
        middle = before + tokens / 2
        return self.pass_s + tokens / self.tokens_per_s * (1 + middle / self.doubling_tokens)


def slowest_machines(card: ModelCard) -> Iterator[Machine]:
    """Yield the slowest machine of each memory size that holds the model."""
    weights = card.shape.weights_bytes
    for working_set_bytes, ratio in SLOWEST.values():
        if weights < working_set_bytes:
            rate = DERATE * M1_RATE * ratio * M1_RATE_BYTES / weights
            yield from (Machine(rate, doubling) for doubling in DOUBLING)


def new_sizer() -> ChunkSizer:
    return ChunkSizer(MAX_CHUNK, max_pairs=METAL_PAIRS)


def processed(machine: Machine, sizer: ChunkSizer, start: int, end: int) -> list[float]:
    """Return the times of all chunks of a prompt with `start` cached tokens."""
    times: list[float] = []
    done = start
    while done < end:
        chunk = min(sizer.next_chunk(done, is_shared=False), end - done)
        times.append(machine.seconds(chunk, done))
        sizer.note_chunk(chunk, done, times[-1], is_shared=False)
        done += chunk
    return times


def a_day(machine: Machine) -> list[float]:
    """A long prompt, then a new one, then the end of a long cached one."""
    sizer = new_sizer()
    return [
        *processed(machine, sizer, 0, 60_000),
        *processed(machine, sizer, 0, 3000),
        *processed(machine, sizer, CONTEXT - 4000, CONTEXT),
        *processed(machine, sizer, 0, 3000),
    ]


def after_a_start(machine: Machine) -> list[float]:
    """The first prompt of a worker continues a prefix restored from disk."""
    return [
        second
        for before in (0, 4000, 16_000, 60_000, 130_000, CONTEXT - 2000)
        for second in processed(machine, new_sizer(), before, before + 1500)
    ]


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.model.name)
@pytest.mark.parametrize("life", [a_day, after_a_start])
def test_chunk_takes_less_than_a_third_of_the_health_check_timeout(
    card: ModelCard, life: Callable[[Machine], list[float]]
) -> None:
    machines = list(slowest_machines(card))
    assert machines, "no Mac holds this model"
    for machine in machines:
        assert max(life(machine)) < TIMEOUT_S / 3


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.model.name)
def test_chunk_takes_its_time_budget_once_measured(card: ModelCard) -> None:
    for machine in slowest_machines(card):
        times = processed(machine, new_sizer(), 0, 60_000)
        assert max(times[1:]) < LONE_CHUNK_S * 1.5


@pytest.mark.parametrize("tokens_per_s", [4, 20, 64, 500])
@pytest.mark.parametrize("swapping_s", [0, 15])
@pytest.mark.parametrize("before", [0, 30_000, CONTEXT - 3000])
def test_health_check_waits_for_any_chunk_on_even_slower_machines(
    tokens_per_s: float, swapping_s: float, before: int
) -> None:
    """Also for a first, unmeasured chunk, and if each pass reads from swap."""
    machine = Machine(tokens_per_s, 14_000, swapping_s)
    sizer = new_sizer()
    for done in range(before, before + 3000, 500):
        chunk = sizer.next_chunk(done, is_shared=False)
        timeouts: list[float] = []
        announcer = StepAnnouncer(lambda _, seconds, to=timeouts: to.append(seconds))
        announcer.begin("a chunk", [chunk], sizer.expected_s(chunk, done))
        seconds = machine.seconds(chunk, done)
        assert seconds < HEALTH_CHECKS.interval_s * (
            HEALTH_CHECKS.max_missed_within(timeouts[0]) - 1
        )
        sizer.note_chunk(chunk, done, seconds, is_shared=False)


def test_dense_27b_on_an_m2_is_not_taken_for_hung() -> None:
    rate = DERATE * M1_RATE * 1.4 * M1_RATE_BYTES / 16e9
    assert 10 < Machine(rate, 125_000).seconds(FIRST_CHUNK, 0) < TIMEOUT_S / 3


def test_health_check_waits_for_a_model_that_was_paged_out() -> None:
    assert HEALTH_CHECKS.max_missed_within(0.0) == HEALTH_CHECKS.max_missed
    assert HEALTH_CHECKS.max_missed_within(0.0, 16 * 10**9) == HEALTH_CHECKS.max_missed
    assert HEALTH_CHECKS.max_missed_within(0.0, 100 * 10**9) * HEALTH_CHECKS.interval_s == 200
    assert HEALTH_CHECKS.max_missed_within(MARGIN * 30) * HEALTH_CHECKS.interval_s == 150
