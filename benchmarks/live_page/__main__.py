"""The live page over hours: `python -m benchmarks.live_page [--trials 5000] [--polls 360] [--runs 498] [--faster 4]`.

A real controller and gateway, a headless Chromium, and a run whose trials end as fast as they can be written: without
models.

    the page of a run   while all trials of the run end; timers of the page are `--faster` times as fast
    the overview        with `--runs` more runs, as often fetched again as in `--polls` × 10 s, while trials end

At intervals the garbage is collected through the DevTools protocol, and the JavaScript heap and the page's DOM nodes
are measured. Memory is flat if the median of the last third of the measurements is at most 1.05 times that of the
middle third; the exit code says so.
Then both pages are opened anew: seconds to the first paint, and until the page has the latest events.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.answer_stack import AnswerStack
from benchmarks.live_page.record import drive, queue_runs
from controller.db.database import Database
from tests.integration.report_page.chromium import EXECUTABLE, Tab, tab

FLAT = 1.05
SAMPLES = 10
_PAUSE_SECONDS = 0.2
_FASTER = """
  const real = setTimeout;
  window.setTimeout = (work, pause, ...more) => real(work, pause / {faster}, ...more);
  const get = fetch;
  window.fetched = 0;
  window.fetch = (...asked) => {{ window.fetched += 1; return get(...asked); }};
"""
_PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000"


@dataclass(frozen=True)
class Sample:
    """After a collection of garbage: how many trials had ended, how often the page fetched something, the JavaScript
    heap in MiB, and the page's DOM nodes and event listeners."""

    ended: int
    fetched: int
    heap: float
    nodes: int
    listeners: int

    @property
    def line(self) -> str:
        """As a row of a table."""
        return f"{self.ended:8,} {self.fetched:8,} {self.heap:9.2f} {self.nodes:7,} {self.listeners:10,}"


def sample(browser: Tab, ended: int) -> Sample:
    """Measures the page."""
    browser.call("HeapProfiler.collectGarbage")
    heap = browser.call("Runtime.getHeapUsage")["usedSize"] / 2**20
    counted = browser.call("Memory.getDOMCounters")
    fetched = browser.evaluate("window.fetched ?? 0")
    return Sample(ended, fetched, heap, counted["nodes"], counted["jsEventListeners"])


def flat(samples: list[Sample]) -> bool:
    """Whether the last third of the samples is about the middle one. The first ones are of a page that is being filled,
    and one may be taken while a region is replaced, when it is there twice."""
    third = len(samples) // 3
    middle, last = samples[third : 2 * third], samples[-third:]
    heap = _grew_little([one.heap for one in middle], [one.heap for one in last])
    return heap and _grew_little([one.nodes for one in middle], [one.nodes for one in last])


def _grew_little(middle: Sequence[float], last: Sequence[float]) -> bool:
    return statistics.median(last) <= FLAT * statistics.median(middle)


def open_faster(browser: Tab, address: str, faster: float) -> None:
    """Opens a page whose timers are `faster` times as fast."""
    script = browser.call("Page.addScriptToEvaluateOnNewDocument", source=_FASTER.format(faster=faster))["identifier"]
    browser.open(address, 1440)
    browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)


async def watch_run(browser: Tab, ends: AsyncIterator[int], trials: int) -> list[Sample]:
    """Samples of a page while trials end."""
    samples: list[Sample] = []
    every = trials // SAMPLES
    async for ended in ends:
        if ended // every > len(samples):
            await asyncio.sleep(_PAUSE_SECONDS)  # for the events on their way
            samples.append(await shown(browser, ended))
    return samples


async def watch_overview(browser: Tab, ends: AsyncIterator[int], polls: int) -> list[Sample]:
    """Samples of a page while it is fetched again; one trial or more ends between two fetches."""
    samples: list[Sample] = []
    async for ended in ends:
        fetched = await asyncio.to_thread(browser.evaluate, "window.fetched")
        if fetched * SAMPLES // polls > len(samples):
            samples.append(await shown(browser, ended))
        if fetched >= polls:
            break
        await asyncio.sleep(_PAUSE_SECONDS)
    return samples


async def shown(browser: Tab, ended: int) -> Sample:
    """A sample, printed."""
    found = await asyncio.to_thread(sample, browser, ended)
    print(found.line, flush=True)
    return found


def paints(browser: Tab, address: str, condition: str) -> tuple[float, float]:
    """Seconds from opening a page to its first paint, and until a condition holds in it."""
    began = time.monotonic()
    browser.open(address, 1440)
    browser.until(condition)
    lasted = time.monotonic() - began
    return browser.evaluate(_PAINT), lasted


async def measured(stack: AnswerStack, database: Database, asked: argparse.Namespace) -> bool:
    """Prints all measurements; whether memory is flat."""
    live = f"{stack.url}/live"
    print(f"   ended  fetched  heap/MiB   nodes  listeners   ({asked.trials:,} trials: the page of their run)")
    name, ends = await drive(database, "watched", asked.trials)
    good = await in_browser(lambda tab: watch_run(tab, ends, asked.trials), f"{live}/{name}", asked.faster)
    _, more = await drive(database, "beside", 100 * asked.polls)
    await queue_runs(database, asked.runs)
    print(f"   ended  fetched  heap/MiB   nodes  listeners   (the overview with {asked.runs + 2:,} runs)")
    good &= await in_browser(lambda tab: watch_overview(tab, more, asked.polls), f"{live}/", 10 * asked.faster)
    for what, address, condition in (
        ("overview", f"{live}/", "document.getElementById('connection').textContent === 'live'"),
        ("page of the run", f"{live}/{name}", "document.querySelectorAll('#now tbody tr').length === 20"),
    ):
        with tab() as browser:
            found = [await asyncio.to_thread(paints, browser, address, condition) for _ in range(5)]
        paint, latest = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"{what}: first paint after {paint:.2f} s, the latest events after {latest:.2f} s (medians of five)")
    return good


async def in_browser(watch: Callable[[Tab], Awaitable[list[Sample]]], address: str, faster: float) -> bool:
    """Whether the memory of a page is flat while it is watched."""
    with tab() as browser:
        await asyncio.to_thread(open_faster, browser, address, faster)
        good = flat(await watch(browser))
    print("flat" if good else "NOT flat", flush=True)
    return good


async def main() -> int:
    """0: memory is flat."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live_page", description=__doc__)
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--polls", type=int, default=360)
    parser.add_argument("--runs", type=int, default=498)
    parser.add_argument("--faster", type=float, default=4)
    asked = parser.parse_args()
    if EXECUTABLE is None:
        print("needs Chromium (Debian: apt-get install chromium)", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        stack = AnswerStack(Path(folder), model=Path(folder), store=Path(folder))
        database = Database(stack.database)
        await database.start()
        try:
            stack.start("controller")
            stack.start("gateway")
            await stack.ready("controller", "gateway")
            return 0 if await measured(stack, database, asked) else 1
        finally:
            await database.close()
            stack.stop()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
