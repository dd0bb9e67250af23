"""Tells waiters in this process that the record changed, so that they need not poll it often."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Bell:
    """Rung after each write. Take `listen()` before reading the record, `wait` on it after: no change is missed."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def ring(self) -> None:
        """Wakes everyone who listens."""
        self._next.set()
        self._next = asyncio.Event()

    def listen(self) -> asyncio.Event:
        """What the next ring sets."""
        return self._next

    @staticmethod
    async def wait(heard: asyncio.Event, *, seconds: float) -> None:
        """Returns when `heard` is set, and after `seconds` at the latest: other processes ring no bell here."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await heard.wait()
