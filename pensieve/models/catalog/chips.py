"""What is known of Apple's chips by their names: how fast they read memory, which bounds how fast a model answers."""

import re

# GB/s, by Apple's technical specifications; of a chip that was sold with two bandwidths the lower (M3 Max 300 and 400,
# M4 Max 410 and 546, M5 Max 460 and 614).
BANDWIDTHS_GB_S: dict[str, dict[int, int]] = {
    "": {1: 68, 2: 100, 3: 100, 4: 120, 5: 153},
    "Pro": {1: 200, 2: 200, 3: 150, 4: 273, 5: 307},
    "Max": {1: 400, 2: 400, 3: 300, 4: 410, 5: 460},
    "Ultra": {1: 800, 2: 800, 3: 819},
}
_NAME = re.compile(r"Apple M(\d+)(?: (Pro|Max|Ultra))?")


def bandwidth_gb_s(chip: str) -> int | None:
    """The memory bandwidth of a chip by its brand string ("Apple M2 Pro"); None for one that is not Apple's.

    A chip that is newer than this table gets what the newest one of its kind has.
    """
    named = _NAME.fullmatch(chip.strip())
    if named is None:
        return None
    of_kind = BANDWIDTHS_GB_S[named[2] or ""]
    generation = max((g for g in of_kind if g <= int(named[1])), default=None)
    return None if generation is None else of_kind[generation]
