"""All ways on one model, interleaved, so that other load on the machine affects all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.inner_loop.child import Child, Memory
from benchmarks.inner_loop.trials import Bench, Trial
from benchmarks.inner_loop.ways import Timing

GOALS = {"micro": {"B": 3.0}, "tiny": {"B": 1.4}, "smollm2": {"B": 1.25, "A@2048": 100.0, "A@512": 13.0}}
"""Goals: the speed-up of sixteen jobs in one batch over each way."""


@dataclass(frozen=True)
class Extent:
    """Amount of work: `repeats` of B and ours, in each `single` trials of B and of ours one at a time, `rounds` of all
    trials with sixteen in one batch; the padded ways and HF Trainer once, or not at all."""

    repeats: int
    single: int
    rounds: int
    others: bool


@dataclass
class Measured:
    """The results of one model: by way the timings of its repeats, and its memory."""

    bench: Bench
    data: str
    timings: dict[str, list[Timing]] = field(default_factory=dict)
    memory: dict[str, Memory] = field(default_factory=dict)
    profile: dict[str, float] = field(default_factory=dict)

    def seconds(self, way: str) -> float:
        """Seconds of an average trial: the median repeat's CPU time with one thread, wall time with more."""
        each = self.timings[way]
        return median(timing.cpu for timing in each) if self.bench.threads == 1 else median(t.wall for t in each)

    def ratio(self, way: str) -> float:
        """Speed-up of sixteen jobs in one batch over `way`: the median over interleaved repeats."""
        theirs, ours = self.timings[way], self.timings["C16"]
        if len(theirs) != len(ours):
            return self.seconds(way) / self.seconds("C16")
        clock = "cpu" if self.bench.threads == 1 else "wall"
        return float(median(getattr(t, clock) / getattr(o, clock) for t, o in zip(theirs, ours, strict=True)))

    @property
    def loss_gap(self) -> float:
        """Largest relative difference from B of the first trial's last-epoch loss."""
        b = self.timings["B"][0].loss
        return max(abs(self.timings[way][0].loss - b) / b for way in ("C1", "C4", "C16") if way in self.timings)

    def missed(self) -> list[str]:
        """The missed goals."""
        goals = GOALS[self.bench.name].items()
        missed = [
            f"{self.bench.title}: {self.ratio(way):.2f} × {way}, goal {goal:g}"
            for way, goal in goals
            if way in self.timings and self.ratio(way) < goal
        ]
        one, many = (self.memory.get(way, Memory(0, 0)).peak for way in ("C1", "C16"))
        return missed + ([f"{self.bench.title}: memory {many / one:.2f} ×, goal under 2"] if many > 2 * one > 0 else [])


def measure(bench: Bench, extent: Extent, data: str) -> Measured:
    """Runs all ways; takes minutes with a real model."""
    measured = Measured(bench, data)
    ways = ["B", "C1", "C4", "C16"] if extent.others else ["B", "C1", "C16"]
    children = {way: Child(way, bench) for way in ways}
    for repeat in range(extent.repeats):
        for way, child in children.items():
            timing = child.train(_share(way, bench.trials, repeat, extent))
            measured.timings.setdefault(way, []).append(timing)
    if extent.others:
        measured.profile = children["C16"].profile()
    measured.memory = {way: child.close() for way, child in children.items()}
    for way in ("T", "A@512", "A@2048") if extent.others else ():
        child = Child(way, bench)
        measured.timings[way] = [child.train(bench.trials)]
        measured.memory[way] = child.close()
    return measured


def _share(way: str, trials: Sequence[Trial], repeat: int, extent: Extent) -> list[Trial]:
    """The trials of a way in one repeat. Ways that train one at a time use different trials in each, starting with the
    first."""
    if way == "C16":
        return [*trials] * extent.rounds
    count = 8 if way == "C4" else extent.single
    return [trials[(repeat * count + i) % len(trials)] for i in range(count)]
