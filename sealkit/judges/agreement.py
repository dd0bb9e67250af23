"""How far two judges agree: on single answers, and on which of several subjects is the better one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import StatisticsError, correlation, fmean

_SUBJECTS = 3


@dataclass(frozen=True, slots=True)
class Agreement:
    """A judge's verdicts against recorded ones, as counts."""

    both: int
    only_judge: int
    only_reference: int
    neither: int

    @property
    def n(self) -> int:
        """Verdicts compared."""
        return self.both + self.only_judge + self.only_reference + self.neither

    @property
    def accuracy(self) -> float:
        """Share of verdicts that agree."""
        return (self.both + self.neither) / self.n

    @property
    def kappa(self) -> float:
        """Cohen's kappa (1960): agreement beyond what the two rates of "right" give by chance."""
        judged, recorded = self.both + self.only_judge, self.both + self.only_reference
        chance = (judged * recorded + (self.n - judged) * (self.n - recorded)) / self.n**2
        return (self.accuracy - chance) / (1 - chance) if chance < 1 else 1.0

    @property
    def precision(self) -> float:
        """Of what the judge calls right, the share that the record calls right."""
        return self.both / max(1, self.both + self.only_judge)

    @property
    def recall(self) -> float:
        """Of what the record calls right, the share that the judge calls right."""
        return self.both / max(1, self.both + self.only_reference)


def agreement(pairs: Iterable[tuple[bool, bool]]) -> Agreement | None:
    """Counts (judge, reference) verdict pairs; None where there is none."""
    counts = {(judged, recorded): 0 for judged in (True, False) for recorded in (True, False)}
    for pair in pairs:
        counts[pair] += 1
    found = Agreement(counts[True, True], counts[True, False], counts[False, True], counts[False, False])
    return found if found.n else None


@dataclass(frozen=True, slots=True)
class Ranking:
    """A judge's order within groups against the recorded one.

    Attributes:
        groups: Groups that count: three subjects or more, which the record does not hold all for equal.
        spearman: Mean over groups of Spearman's rank correlation, ties at their mean rank; 0 for a group whose
            subjects the judge holds for equal.
        gain_kept: What is gained over a random choice by taking each group's best by the judge, as a share of what is
            gained by taking its best by the record. Of equals the first is taken, as SEAL does.
    """

    groups: int
    spearman: float
    gain_kept: float


def ranking(groups: Iterable[Sequence[tuple[float, float]]]) -> Ranking | None:
    """Compares scores (judge, reference) within groups of subjects; None where no group counts."""
    counted = [group for group in groups if len(group) >= _SUBJECTS and len({recorded for _, recorded in group}) > 1]
    if not counted:
        return None
    gained, possible = 0.0, 0.0
    for group in counted:
        mean = fmean(recorded for _, recorded in group)
        gained += max(group, key=lambda scores: scores[0])[1] - mean
        possible += max(recorded for _, recorded in group) - mean
    return Ranking(len(counted), fmean(map(_spearman, counted)), gained / possible)


def _spearman(group: Sequence[tuple[float, float]]) -> float:
    judged, recorded = zip(*group, strict=True)
    try:
        return correlation(_ranks(judged), _ranks(recorded))
    except StatisticsError:
        return 0.0


def _ranks(values: Sequence[float]) -> list[float]:
    """From 1 for the least; equals share the mean of their ranks."""
    ordered = sorted(values)
    return [ordered.index(value) + (ordered.count(value) + 1) / 2 for value in values]
