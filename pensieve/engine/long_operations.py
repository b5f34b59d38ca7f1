"""Announcements of long work by the worker, so that the front end does not take it for hung.

Only the worker knows how long its next step should take, since it measures its steps. It sends that
with a margin as `Begun`, and the front end (engine/client/supervisor.py) waits that long. Pure: the
send function is passed in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

# Called with the work that begins and the seconds within which the next frame follows.
Announce = Callable[[str, float], None]

Platform = Literal["cuda", "metal", "cpu"]

# Factor on the expected time: another program on the GPU, a machine that swaps or is hot.
MARGIN = 5.0
# Python files and libraries of a few hundred megabytes, from a slow disk at worst.
IMPORTING_S = 180.0
# Weights are read in parts, of which each is announced. A slow disk, or one over the network, reads
# 5 MB a second.
PART_BYTES = 256 * 10**6
SLOWEST_DISK_BYTES_S = 5 * 10**6
MIN_PART_S = 60.0
# A few short passes, each of which compiles its kernels unless they are cached.
TRYING_S = 300.0
# A file of a stored prefix is 100 MB at most.
READ_BACK_S = 60.0
# The front end decodes the picture, the tower of a vision model is read from the disk and looks at
# it for as long as a chunk of a prompt takes.
LOOKING_S = 180.0
# nvrtc compiles a kernel of MLX's CUDA build for 28 to 53 s (H100 and H200, MLX 0.32.4, 2026-11),
# once for every size range of its matrix products; Metal's kernels come compiled and are only
# prepared for the chip, in less than a second.
COMPILING_S: dict[Platform, float] = {"cuda": 120.0, "metal": 20.0, "cpu": 0.0}


def reading_s(nbytes: int) -> float:
    """Return the seconds within which a slow disk reads a part of the weights."""
    return max(MIN_PART_S, nbytes / SLOWEST_DISK_BYTES_S)


def announce_nothing(work: str, timeout_s: float) -> None:
    """Ignore the announcement: no front end watches this code."""


@dataclass(slots=True)
class StepAnnouncer:
    """Announces the steps of a batch. Owned by the builder of batches; outlives them."""

    announce: Announce = announce_nothing
    # What the first pass over a number of tokens may take in addition.
    compiling_s: float = 0.0
    _seen_sizes: set[int] = field(default_factory=set[int])

    def with_prefix(self, prefix: str) -> "StepAnnouncer":
        """Return an announcer of the same batch that puts `prefix` before each announcement."""

        def announce(work: str, timeout_s: float) -> None:
            self.announce(prefix + work, timeout_s)

        return replace(self, announce=announce)

    def begin(self, work: str, sizes: Sequence[int], expected_s: float) -> None:
        """Announce a step with passes over `sizes` tokens, unless it is short."""
        new = {_size_class(size) for size in sizes if size} - self._seen_sizes
        self._seen_sizes |= new
        timeout_s = MARGIN * expected_s + len(new) * self.compiling_s
        if timeout_s:
            self.announce(work, timeout_s)


def _size_class(tokens: int) -> int:
    # The next power of two: MLX's CUDA kernels differ between these, up to 256.
    return min(256, 1 << (tokens - 1).bit_length())
