"""The memory bandwidth of Apple's chips by name, which bounds a model's generation speed."""

import re

# GB/s, by Apple's technical specifications; the lower value for chips that were sold with two (M3
# Max 300 and 400, M4 Max 410 and 546, M5 Max 460 and 614).
BANDWIDTHS_GB_S: dict[str, dict[int, int]] = {
    "": {1: 68, 2: 100, 3: 100, 4: 120, 5: 153},
    "Pro": {1: 200, 2: 200, 3: 150, 4: 273, 5: 307},
    "Max": {1: 400, 2: 400, 3: 300, 4: 410, 5: 460},
    "Ultra": {1: 800, 2: 800, 3: 819},
}
_NAME = re.compile(r"Apple M(\d+)(?: (Pro|Max|Ultra))?")


def bandwidth_gb_s(chip: str) -> int | None:
    """Return the bandwidth for a brand string ("Apple M2 Pro"); None for other makers' chips.

    A chip newer than this table gets the value of the newest one of its kind.
    """
    match = _NAME.fullmatch(chip.strip())
    if match is None:
        return None
    by_generation = BANDWIDTHS_GB_S[match[2] or ""]
    generation = max((g for g in by_generation if g <= int(match[1])), default=None)
    return None if generation is None else by_generation[generation]
