"""Chooses the jobs of the next step: fair between owners, then between an owner's jobs, without starvation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from trainer_svc.job import Job


class Scheduler:
    """Fills steps by tokens served (start-time fair queuing): the owner with the fewest tokens goes first, and of its
    jobs the one that waited longest. A job that does not fit is not overtaken by its owner's others, and the first job
    gets its step whatever its size, so no job starves."""

    def __init__(self) -> None:
        self._served: dict[str, int] = {}
        self._last: dict[Job, int] = {}
        self._clock = 0

    def fill(self, running: Sequence[Job], budget: int) -> list[Job]:
        """Jobs whose next micro-batches have at most `budget` tokens together, or the first job alone."""
        self._clock += 1
        self._forget_absent(running)
        chosen: list[Job] = []
        left = budget
        candidates = list(running)
        while candidates:
            job = min(candidates, key=lambda j: (self._served[j.spec.owner], self._last[j], j.submitted))
            if chosen and job.tokens > left:
                candidates = [other for other in candidates if other.spec.owner != job.spec.owner]
                continue
            candidates.remove(job)
            chosen.append(job)
            left -= job.tokens
            self._served[job.spec.owner] += job.tokens
            self._last[job] = self._clock
        return chosen

    def _forget_absent(self, running: Sequence[Job]) -> None:
        owners = {job.spec.owner for job in running}
        self._served = {owner: tokens for owner, tokens in self._served.items() if owner in owners}
        # A new owner starts at the smallest count: it has no claim on service before its arrival.
        level = min(self._served.values(), default=0)
        for owner in owners:
            self._served.setdefault(owner, level)
        self._last = {job: self._last.get(job, 0) for job in running}


def next_to_join(waiting: Sequence[Job], running: Sequence[Job]) -> Job:
    """The waiting job for a free slot: an urgent one, else the oldest of the owner with the fewest running jobs."""
    slots = Counter(job.spec.owner for job in running)
    return min(waiting, key=lambda job: (not job.spec.urgent, slots[job.spec.owner], job.submitted))
