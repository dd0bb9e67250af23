"""How many trials a worker has in progress: fewer each time that a service reports that it is full, slowly more as
trials end. Additive increase, multiplicative decrease, as in TCP's congestion avoidance (RFC 5681): workers that share
a service converge to equal shares without communication."""

from __future__ import annotations

import time
from collections.abc import Callable

_DECREASE = 0.7
_PAUSE_SECONDS = 1.0
"""Only one refusal in this time counts, because refusals at the same moment have the same cause."""


class ConcurrencyLimit:
    """`limit` is between 1 and `most` trials in progress."""

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._now = float(most)
        self._clock = clock
        self._lowered = -float("inf")

    @property
    def limit(self) -> int:
        """Most trials in progress now."""
        return int(self._now)

    def full(self) -> None:
        """Call this if a service had no capacity."""
        if self._clock() - self._lowered >= _PAUSE_SECONDS:
            self._lowered = self._clock()
            self._now = max(1.0, self._now * _DECREASE)

    def ended(self) -> None:
        """Call this when a trial ended. After as many calls as the limit, the limit is one more."""
        self._now = min(float(self._most), self._now + 1 / self._now)
