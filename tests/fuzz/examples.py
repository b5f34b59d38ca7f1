"""The number of examples per test: a few hundred, or PENSIEVE_FUZZ_EXAMPLES."""

import os

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("PENSIEVE_FUZZ_EXAMPLES", "0"))


def max_examples(ordinary: int) -> settings:
    """Return hypothesis settings; `ordinary` holds unless the variable is set."""
    return settings(
        max_examples=EXAMPLES or ordinary,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
