"""The versions that a trial is made with, as reported by the three model services."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping

from controller.retry import gather_or_cancel, retry_until_available
from controller.services import Services
from sealkit.errors import Unavailable
from sealkit.types import ModelInfo

_SERVICES = ("generator", "trainer", "evaluator")
_SECONDS = 10.0
"""How long an answer is cached: hundreds of trials a second must not each ask."""


class Versions:
    """Asks the services, at most every `_SECONDS`. With replicas, one of them answers."""

    def __init__(self, services: Services, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._services = services
        self._clock = clock
        self._asking = asyncio.Lock()
        self._asked = -float("inf")
        self._known: dict[str, dict[str, str]] = {}

    async def get(self) -> dict[str, str]:
        """A fact with the same value everywhere by its own name (`torch`), others by service (`trainer.torch`).

        The last answer of a service stands for it while it is unavailable; a first answer is waited for.
        """
        async with self._asking:
            if self._clock() - self._asked > _SECONDS:
                await gather_or_cancel(*(self._ask(name) for name in _SERVICES))
                self._asked = self._clock()
        return _merged(self._known)

    async def _ask(self, name: str) -> None:
        async def facts() -> dict[str, str]:
            if name == "trainer":
                trainer = await self._services.trainer.trainer_info()
                return {**_facts(trainer.model), "engine": trainer.engine_version}
            service = self._services.generator if name == "generator" else self._services.evaluator
            return _facts(await service.info())

        if name not in self._known:
            self._known[name] = await retry_until_available(facts, doing=f"asking the {name} for its versions")
            return
        try:
            self._known[name] = await facts()
        except Unavailable:
            return


def changes(was: Mapping[str, str], now: Mapping[str, str]) -> Iterator[tuple[str, str | None, str | None]]:
    """(fact, before, after) for each difference of two answers of `Versions.get`; by service, unless all changed to the
    same value."""
    for fact in dict.fromkeys(name.rpartition(".")[2] for name in (*was, *now)):
        sides = {
            service: tuple(side.get(f"{service}.{fact}", side.get(fact)) for side in (was, now))
            for service in _SERVICES
        }
        if len(set(sides.values())) == 1:
            sides = {"": next(iter(sides.values()))}
        for service, (before, after) in sides.items():
            if before != after:
                yield f"{service}.{fact}".lstrip("."), before, after


def _facts(info: ModelInfo) -> dict[str, str]:
    return {"model": info.digest, "dtype": info.dtype, "device": info.device, **info.build}


def _merged(known: dict[str, dict[str, str]]) -> dict[str, str]:
    merged: dict[str, str] = {}
    for fact in sorted({fact for facts in known.values() for fact in facts}):
        said = {name: facts[fact] for name, facts in known.items() if fact in facts}
        if len(set(said.values())) == 1:
            merged[fact] = next(iter(said.values()))
        else:
            merged.update({f"{name}.{fact}": value for name, value in said.items()})
    return merged
