"""Circuit breaker (Nygard, Release It!, 2007): after many consecutive failures, make no calls for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sealkit.errors import Unavailable


class CircuitBreaker:
    """Closed: all calls pass. Open, after `failures` consecutive failures: none pass for `seconds`. Then one may try:
    its success closes the breaker, its failure opens it for another `seconds`. For one event loop."""

    def __init__(
        self, name: str, *, failures: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._limit = failures
        self._seconds = seconds
        self._clock = clock
        self._in_a_row = 0
        self._opened_at = 0.0
        self._trying = False

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Context of one attempt; report its outcome by `succeeded` or `failed`. While the breaker is open, raises
        Unavailable with the seconds until the next attempt."""
        mine = self._in_a_row >= self._limit
        if mine:
            left = self._opened_at + self._seconds - self._clock()
            if left > 0 or self._trying:
                raise Unavailable(
                    f"{self._name} failed {self._in_a_row} times in a row; next call in {max(0.0, left):.0f} s",
                    retry_after=max(left, 0.1),
                )
            self._trying = True
        try:
            yield
        finally:
            if mine:
                self._trying = False

    def succeeded(self) -> None:
        """The service answered, whatever the answer."""
        self._in_a_row = 0

    def failed(self) -> None:
        """The service did not answer, or reported that it cannot."""
        self._in_a_row += 1
        self._opened_at = self._clock()
