"""Weighted fair queuing over the runs of one worker.

Priorities are strict: no trial is taken while one of a higher priority waits. Within a priority, start-time fair
queuing (Goyal et al. 1996): each run has a virtual time that advances by the slot-seconds of its trials divided by the
run's share; the run with the smallest virtual time is next. So shares are shares of time, not of trials; ten thousand
waiting trials of one run do not delay another's; and a run that was idle continues at the current virtual time, without
credit for its idle time. The module is deterministic and reads no clock.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence

from controller.db.runs import RunStream

_NEWEST = 0.2
"""Weight of the newest trial in a run's moving average."""
_LEAST_SECONDS = 1e-3
"""Smallest charge of a trial, so that runs with instant trials alternate too."""


class FairShare:
    """Plans which trials to take, and accounts for them."""

    def __init__(self) -> None:
        self._now = 0.0
        self._time: dict[str, float] = {}
        self._seconds: dict[str, float] = {}
        self._idle: set[str] = set()

    def keep(self, streams: Iterable[RunStream]) -> None:
        """Forgets all runs but these."""
        ids = {stream.run_id for stream in streams}
        self._time = {run_id: time for run_id, time in self._time.items() if run_id in ids}
        self._seconds = {run_id: seconds for run_id, seconds in self._seconds.items() if run_id in ids}
        self._idle &= ids

    def plan(self, streams: Sequence[RunStream], free: int) -> dict[str, int]:
        """How many trials to take of each of these runs, all of one priority, if `free` can start."""
        heap = [(self._present(stream.run_id), stream.run_id, self.charge(stream)) for stream in streams]
        heapq.heapify(heap)
        asked: Counter[str] = Counter()
        for _ in range(free if heap else 0):
            time, run_id, charge = heap[0]
            asked[run_id] += 1
            heapq.heapreplace(heap, (time + charge, run_id, charge))
        return dict(asked)

    def charge(self, stream: RunStream) -> float:
        """The charge of a trial when it starts: the run's average slot-seconds so far, divided by its share."""
        known = self._seconds.values()
        return self._seconds.get(stream.run_id, sum(known) / len(known) if known else 1.0) / stream.share

    def took(self, stream: RunStream, *, asked: int, got: int) -> None:
        """Accounts for `got` trials taken; fewer than `asked` means that the run has no more waiting."""
        present = self._present(stream.run_id)
        if got:
            self._now = max(self._now, present)
            self._time[stream.run_id] = present + got * self.charge(stream)
            self._idle.discard(stream.run_id)
        if got < asked:
            self._idle.add(stream.run_id)

    def finished(self, stream: RunStream, *, charged: float, seconds: float) -> None:
        """Replaces a trial's charge by its actual slot-seconds."""
        if stream.run_id in self._time:
            seconds = max(seconds, _LEAST_SECONDS)
            self._time[stream.run_id] += seconds / stream.share - charged
            mean = self._seconds.get(stream.run_id, seconds)
            self._seconds[stream.run_id] = mean + _NEWEST * (seconds - mean)

    def _present(self, run_id: str) -> float:
        """A run's virtual time; at least the current one if the run is new or was idle."""
        time = self._time.get(run_id)
        if time is None:
            return self._now
        return max(time, self._now) if run_id in self._idle else time
