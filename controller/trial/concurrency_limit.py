"""How much a worker keeps in flight: less each time that a service says it is full, slowly more as trials come to their
end. Additive increase, multiplicative decrease, as in TCP's congestion avoidance (RFC 5681): workers that share a
service settle on fair parts of it without talking to each other."""

from __future__ import annotations

import time
from collections.abc import Callable

_DECREASE = 0.7
_PAUSE_SECONDS = 1.0
"""One refusal in so long counts: those of one moment tell of the same thing."""


class ConcurrencyLimit:
    """`limit` is between 1 and `most` trials in flight."""

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._now = float(most)
        self._clock = clock
        self._lowered = -float("inf")

    @property
    def limit(self) -> int:
        """Trials to have in flight now."""
        return int(self._now)

    def full(self) -> None:
        """A service had no room."""
        if self._clock() - self._lowered >= _PAUSE_SECONDS:
            self._lowered = self._clock()
            self._now = max(1.0, self._now * _DECREASE)

    def ended(self) -> None:
        """A trial came to its end: after as many as there are in flight, one more may be."""
        self._now = min(float(self._most), self._now + 1 / self._now)
