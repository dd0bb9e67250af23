"""Notifies waiters in this process that the database changed, so that they need not poll it often."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Notifier:
    """Notified after each write. Take `subscribe()` before reading, `wait` on it after: no change is missed."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def notify(self) -> None:
        """Wakes every subscriber."""
        self._next.set()
        self._next = asyncio.Event()

    def subscribe(self) -> asyncio.Event:
        """The event that the next `notify` sets."""
        return self._next

    @staticmethod
    async def wait(heard: asyncio.Event, *, seconds: float) -> None:
        """Returns when `heard` is set, and after `seconds` at the latest: other processes do not notify this one."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await heard.wait()
