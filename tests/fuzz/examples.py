"""How long to look: a few hundred examples in an ordinary run, as many as PENSIEVE_FUZZ_EXAMPLES says in a long one."""

import os

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("PENSIEVE_FUZZ_EXAMPLES", "0"))


def looking(examples: int) -> settings:
    """Settings for a test that takes `examples` in an ordinary run."""
    return settings(
        max_examples=EXAMPLES or examples,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
