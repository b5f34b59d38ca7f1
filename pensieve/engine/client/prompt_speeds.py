"""How fast machines process prompts, next to each other, by the last figures of their engines.

Pure.
"""

from collections import defaultdict, deque
from functools import partial
from statistics import median

# Figures of short prompts are low, so one figure says little.
MAX_FIGURES = 9
# Machines that are almost as fast as the fastest one count as equal: their figures differ by chance
# as well, and then the prompt's first block decides.
EQUAL_SHARE = 0.75
MAX_SLOWDOWN = 8.0


class PromptSpeeds:
    """Engines of one machine have one speed: they share it, whichever of them is measured."""

    def __init__(self) -> None:
        self._figures = defaultdict[str, deque[float]](partial(deque[float], maxlen=MAX_FIGURES))

    def note(self, host: str, tokens_per_second: float) -> None:
        """Record a figure. One that is repeated, or 0, is not a new one."""
        figures = self._figures[host]
        if tokens_per_second and tokens_per_second not in figures:
            figures.append(tokens_per_second)

    def slowdown(self, host: str) -> float:
        """Return how many times as long as on the fastest machine a prompt takes; 1 if unknown."""
        speeds = {name: median(each) for name, each in self._figures.items() if each}
        if host not in speeds:
            return 1.0
        share = speeds[host] / max(speeds.values())
        return 1.0 if share >= EQUAL_SHARE else min(MAX_SLOWDOWN, 1 / share)
