"""The room of faults: everything that goes wrong while a run goes on, each made and undone in one method.

`Chaos` deals them like cards: every fault comes before one comes again. All chance comes from one seed.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Sequence

import redis
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from tests.integration.chaos.harness import CALL_SECONDS, LEASE, Harness


class Chaos:
    """What happens to a harness, of these faults. `dealt` says what did, in order."""

    def __init__(self, harness: Harness, seed: int, faults: Sequence[str]) -> None:
        self._house = harness
        self._chance = random.Random(seed)
        self._faults = faults
        self._deck: list[str] = []
        self.dealt: list[str] = []

    async def one(self) -> None:
        """The next fault, from its beginning to its end."""
        if not self._deck:
            self._deck = self._chance.sample(self._faults, len(self._faults))
        name = self._deck.pop()
        self.dealt.append(name)
        await getattr(self, name)()

    # --- processes that die -------------------------------------------------------------------------------------------
    async def kill_a_worker(self) -> None:
        at = self._chance.randrange(len(self._house.workers))
        self._house.kill(self._house.workers[at])
        await self._a_while(0.5)
        self._house.workers[at] = self._house.start_worker()

    async def kill_all_workers(self) -> None:
        for worker in self._house.workers:
            self._house.kill(worker)
        self._house.workers = [self._house.start_worker() for _ in self._house.workers]

    async def kill_the_api(self) -> None:
        assert self._house.api_process is not None
        self._house.kill(self._house.api_process)
        await self._a_while(0.5)
        self._house.api_process = self._house.start_api()

    async def kill_the_services(self) -> None:
        assert self._house.models is not None
        self._house.kill(self._house.models)
        await self._a_while(1)
        self._house.models = self._house.start_models()

    async def freeze_a_worker(self) -> None:
        """Stands still for longer than its lease, then goes on as if nothing had been."""
        worker = self._chance.choice(self._house.workers)
        worker.send_signal(signal.SIGSTOP)
        await asyncio.sleep(LEASE * self._chance.uniform(1.5, 3))
        worker.send_signal(signal.SIGCONT)

    # --- Redis --------------------------------------------------------------------------------------------------------
    async def kill_redis(self) -> None:
        """The next one knows nothing."""
        self._house.kill(self._house.valkey)
        await self._a_while(1)
        await asyncio.to_thread(self._house.start_redis)

    async def wipe_redis(self) -> None:
        with redis.Redis(port=self._house.proxy.target) as client:
            await asyncio.to_thread(client.flushall)

    async def unplug_redis(self) -> None:
        self._house.proxy.refuse()
        await self._a_while(3)
        self._house.proxy.heal()

    async def mute_redis(self) -> None:
        """Connections stay; nothing comes through."""
        self._house.proxy.swallow()
        await self._a_while(4)
        self._house.proxy.heal()

    async def deliver_twice(self) -> None:
        """Every message once more: two workers get the same trial."""
        await asyncio.to_thread(self._deliver_twice)

    def _deliver_twice(self) -> None:
        with redis.Redis(port=self._house.proxy.target, decode_responses=True) as client:
            for stream in client.smembers("seal:trials:streams"):
                for _, fields in client.xrange(f"seal:trials:{stream}"):
                    client.xadd(f"seal:trials:{stream}", fields)

    async def hand_to_another(self) -> None:
        """What live workers have under way is claimed for one of them, as if the others were dead."""
        await asyncio.to_thread(self._hand_to_another)

    def _hand_to_another(self) -> None:
        with redis.Redis(port=self._house.proxy.target, decode_responses=True) as client:
            for stream in client.smembers("seal:trials:streams"):
                key = f"seal:trials:{stream}"
                pending = client.xpending_range(key, "workers", "-", "+", 100)
                for entry in pending:  # so idle that whoever looks next takes it
                    client.xclaim(key, "workers", entry["consumer"], 0, [entry["message_id"]], idle=10**7, justid=True)

    # --- SQL ----------------------------------------------------------------------------------------------------------
    async def lock_sql(self) -> None:
        """Somebody holds a lock for seconds on all that is written."""
        await asyncio.to_thread(self._lock_sql, self._chance.uniform(1, 2 * LEASE))

    def _lock_sql(self, seconds: float) -> None:
        engine = create_engine(self._house.database_url, isolation_level="AUTOCOMMIT")
        lite = engine.dialect.name == "sqlite"
        lock = "BEGIN EXCLUSIVE" if lite else "BEGIN; LOCK TABLE runs, trials, workers IN ACCESS EXCLUSIVE MODE"
        with engine.connect() as connection:
            for statement in (["PRAGMA busy_timeout = 20000"] if lite else []) + lock.split("; "):
                connection.execute(text(statement))
            time.sleep(seconds)
            connection.execute(text("ROLLBACK"))
        engine.dispose()

    async def lose_sql(self) -> None:
        """Every connection to PostgreSQL is cut, again and again for a second; a file cannot be cut off."""
        if self._house.database_url.startswith("sqlite"):
            return
        for _ in range(5):
            await asyncio.to_thread(self._cut_connections)
            await asyncio.sleep(0.2)

    def _cut_connections(self) -> None:
        engine = create_engine(self._house.database_url, isolation_level="AUTOCOMMIT")
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> "
        try:
            with engine.connect() as connection:
                connection.execute(text(cut + "pg_backend_pid()"))
        except SQLAlchemyError as error:
            raise AssertionError("the test's own connection was cut") from error
        finally:
            engine.dispose()

    # --- services -----------------------------------------------------------------------------------------------------
    async def go_wild(self) -> None:
        """For a while the services are slow, full, silent, or tell nonsense."""
        assert self._house.models is not None
        for wild in (self._chance, None):
            self._house.kill(self._house.models)
            self._house.wild = wild
            self._house.models = self._house.start_models()
            await asyncio.sleep(CALL_SECONDS if wild else 0)

    # ------------------------------------------------------------------------------------------------------------------
    async def _a_while(self, seconds: float) -> None:
        await asyncio.sleep(self._chance.uniform(0, seconds))


def _is_fault(name: str) -> bool:
    return asyncio.iscoroutinefunction(vars(Chaos)[name]) and not name.startswith("_") and name != "one"


FAULTS = [name for name in vars(Chaos) if _is_fault(name)]
OF_SQL = ("lock_sql", "lose_sql")
