"""Prefill plan: rows with a common prefix copy its keys and values, and rows of similar length share a pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sealkit.backends.decoding.row import Row

_LEAST_SHARED = 8
"""Shorter prefixes are not worth a copy."""
_PADDING = 32
"""Padding tokens that cost about as much as another pass over the weights."""


@dataclass(eq=False)
class Joiner:
    """A row to be prefilled into `slot`: its first `shared` tokens are copied from the row in slot `donor`."""

    row: Row
    slot: int
    donor: int = -1
    shared: int = 0

    @property
    def rest(self) -> list[int]:
        return self.row.prompt[self.shared :]


def plan(joiners: Sequence[Joiner], running: Iterable[tuple[int, Row]]) -> list[list[Joiner]]:
    """The passes in order. A row shares its common prefix with a running row, or with a joiner of an earlier pass,
    under the same adapters; the last token of a prompt is always read, for its logits."""
    first: list[Joiner] = []
    second: list[Joiner] = []
    running = list(running)
    for joiner in joiners:
        _share(joiner, running)
        beside = Joiner(joiner.row, joiner.slot)
        _share(beside, [(j.slot, j.row) for j in first])
        if beside.shared > joiner.shared:
            joiner.donor, joiner.shared = beside.donor, beside.shared
            second.append(joiner)
        else:
            first.append(joiner)
    return _passes(first) + _passes(second)


def _share(joiner: Joiner, donors: Iterable[tuple[int, Row]]) -> None:
    row = joiner.row
    for slot, donor in donors:
        if donor.adapters == row.adapters:
            shared = min(_common(row.prompt, donor.prompt), len(row.prompt) - 1)
            if shared > max(joiner.shared, _LEAST_SHARED - 1):
                joiner.donor, joiner.shared = slot, shared


def _common(left: list[int], right: list[int]) -> int:
    if left == right:
        return len(left)
    for place, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return place
    return min(len(left), len(right))


def _passes(joiners: Iterable[Joiner]) -> list[list[Joiner]]:
    passes: list[list[Joiner]] = []
    padding = longest = 0
    for joiner in sorted(joiners, key=lambda j: -len(j.rest)):
        padding += longest - len(joiner.rest)
        if not passes or padding > _PADDING:
            passes.append([])
            padding, longest = 0, len(joiner.rest)
        passes[-1].append(joiner)
    return passes
