"""Who trains next: fair between owners, then between an owner's jobs; nobody starves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from trainer_svc.job import Job


class Scheduler:
    """Fills steps by tokens served (start-time fair queueing): the owner served least goes first, and of its jobs the
    one that waited longest. One that does not fit is not overtaken by its owner's others, and who is first in line gets
    its step however big it is; so no job waits for ever."""

    def __init__(self) -> None:
        self._served: dict[str, int] = {}
        self._last: dict[Job, int] = {}
        self._clock = 0

    def fill(self, running: Sequence[Job], budget: int) -> list[Job]:
        """Jobs whose next micro-batches make up a step of at most `budget` tokens, or the first in line alone."""
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
        # A newcomer starts level with the least served: what others got before it came is not its to claim.
        level = min(self._served.values(), default=0)
        for owner in owners:
            self._served.setdefault(owner, level)
        self._last = {job: self._last.get(job, 0) for job in running}


def next_to_join(waiting: Sequence[Job], running: Sequence[Job]) -> Job:
    """Which waiting job takes a free slot: an urgent one, else of the owner with fewest running, the oldest."""
    slots = Counter(job.spec.owner for job in running)
    return min(waiting, key=lambda job: (not job.spec.urgent, slots[job.spec.owner], job.submitted))
