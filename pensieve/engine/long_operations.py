"""What the worker says before it begins something that may take long, so that it is not taken for
wedged meanwhile.

The worker alone knows how long its next step should take: it has measured the last ones. It sends
that with a margin as `Begun`, and the front end (engine/client/supervisor.py) waits so long, and no longer.
Pure: how it is sent is handed in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

# Called with what begins, and after how many seconds at the latest the worker says its next word.
Announce = Callable[[str, float], None]

# What MLX computes on.
Platform = Literal["cuda", "metal", "cpu"]

# Times what was expected: another program on the GPU, a machine that swaps or is hot.
MARGIN = 5.0
# Python files and libraries of a few hundred megabytes, from a slow disk at worst.
IMPORTING_S = 180.0
# Weights are read in parts, of which each is announced. A slow disk, or one over the network, reads
# 5 MB a second.
PART_BYTES = 256 * 10**6
SLOWEST_DISK_BYTES_S = 5 * 10**6
MIN_PART_S = 60.0
# A few short passes, each of which compiles its kernels where they come from no cache.
TRYING_S = 300.0
# A file of a stored prefix is 100 MB at most.
READ_BACK_S = 60.0
# nvrtc compiles a kernel of MLX's CUDA build for 28 to 53 s (H100 and H200, MLX 0.32.4, 2026-11),
# once for every size range of its matrix products; Metal's kernels come compiled and are only
# prepared for the chip, in less than a second.
COMPILING_S: dict[Platform, float] = {"cuda": 120.0, "metal": 20.0, "cpu": 0.0}


def reading_s(nbytes: int) -> float:
    """The longest that a part of the weights may take to be read."""
    return max(MIN_PART_S, nbytes / SLOWEST_DISK_BYTES_S)


def announce_nothing(work: str, patience_s: float) -> None:
    """For code that no front end watches."""


@dataclass(slots=True)
class StepAnnouncer:
    """Announces the steps of a batch. Owned by the batch's maker, kept over its batches."""

    announce: Announce = announce_nothing
    compiling_s: float = (
        0.0  # what the first pass over a number of tokens may take on top of any later one
    )
    _seen_sizes: set[int] = field(default_factory=set[int])

    def saying(self, prefix: str) -> "StepAnnouncer":
        """Another announcer of the same batch, which puts `prefix` before what it announces."""

        def announce(work: str, patience_s: float) -> None:
            self.announce(prefix + work, patience_s)

        return replace(self, announce=announce)

    def begin(self, work: str, sizes: Sequence[int], expected_s: float) -> None:
        """Announce a step with passes over `sizes` tokens; a step that takes no time to speak of is
        not announced.
        """
        new = {_size_class(size) for size in sizes if size} - self._seen_sizes
        self._seen_sizes |= new
        patience_s = MARGIN * expected_s + len(new) * self.compiling_s
        if patience_s:
            self.announce(work, patience_s)


def _size_class(tokens: int) -> int:
    """The next power of two: MLX's CUDA kernels differ from one to another of these, up to 256."""
    return min(256, 1 << (tokens - 1).bit_length())
