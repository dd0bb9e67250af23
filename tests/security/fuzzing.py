"""How much is thrown: a fixed handful in `make test`, the same each time; in `make fuzz` many times more, and anew."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

MORE = int(os.environ.get("SEAL_FUZZ_EXAMPLES", "1"))


def examples(count: int) -> settings:
    """Settings of a test that is to throw `count` things, times SEAL_FUZZ_EXAMPLES."""
    return settings(
        max_examples=count * MORE,
        derandomize=MORE == 1,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
