"""Limits of a judge: requests per minute, tokens, money."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from sealkit.errors import ResourceExhausted

_MILLION = 1_000_000


class Pace:
    """At most `per_minute` starts per minute, evenly spaced after a burst of one second's worth; 0: no limit. For one
    event loop."""

    def __init__(
        self,
        per_minute: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._gap = 60 / per_minute if per_minute else 0.0
        self._burst = 1.0 if self._gap else 0.0
        self._clock = clock
        self._sleep = sleep
        self._next = clock()

    async def turn(self) -> None:
        """Returns when the next request may start; in the order of the calls."""
        now = self._clock()
        mine = self._next = max(self._next, now - self._burst) + self._gap
        if mine - self._gap > now:
            await self._sleep(mine - self._gap - now)


class Budget:
    """Tokens and money spent. Running requests are reserved, so that concurrent ones never exceed the limit."""

    def __init__(self, *, tokens: int, money: float, prompt_price: float, completion_price: float) -> None:
        """Limits, 0 for none; prices per million tokens."""
        self._token_limit = tokens
        self._money_limit = money
        self._prices = (prompt_price, completion_price)
        self._tokens = 0
        self._money = 0.0

    def reserve(self, prompt: int, completion: int) -> None:
        """Reserves the most that a request may use. Raises ResourceExhausted if less is left."""
        if self._token_limit and self._tokens + prompt + completion > self._token_limit:
            raise ResourceExhausted(f"the judge's limit of {self._token_limit} tokens is reached")
        if self._money_limit and self._money + self._cost(prompt, completion) > self._money_limit:
            raise ResourceExhausted(f"the judge's cost limit of {self._money_limit:g} is reached")
        self._add(prompt, completion)

    def settle(self, reserved: tuple[int, int], used: tuple[int, int]) -> None:
        """Replaces a reservation (prompt, completion tokens) by the actual use."""
        self._add(used[0] - reserved[0], used[1] - reserved[1])

    def _add(self, prompt: int, completion: int) -> None:
        self._tokens += prompt + completion
        self._money += self._cost(prompt, completion)

    def _cost(self, prompt: int, completion: int) -> float:
        return (prompt * self._prices[0] + completion * self._prices[1]) / _MILLION
