"""Agreement of two judges: on single answers, and on the ranking of several subjects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import StatisticsError, correlation, fmean

_SUBJECTS = 3


@dataclass(frozen=True, slots=True)
class Agreement:
    """Counts of a judge's verdicts by recorded verdict."""

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
        """Cohen's kappa (1960): agreement beyond what the two rates of "correct" give by chance."""
        judged, recorded = self.both + self.only_judge, self.both + self.only_reference
        chance = (judged * recorded + (self.n - judged) * (self.n - recorded)) / self.n**2
        return (self.accuracy - chance) / (1 - chance) if chance < 1 else 1.0

    @property
    def precision(self) -> float:
        """Share of the judge's correct verdicts that are correct in the recorded ones."""
        return self.both / max(1, self.both + self.only_judge)

    @property
    def recall(self) -> float:
        """Share of the recorded correct verdicts that are correct for the judge."""
        return self.both / max(1, self.both + self.only_reference)


def agreement(pairs: Iterable[tuple[bool, bool]]) -> Agreement | None:
    """Counts (judge, reference) verdict pairs; None without any."""
    counts = {(judged, recorded): 0 for judged in (True, False) for recorded in (True, False)}
    for pair in pairs:
        counts[pair] += 1
    found = Agreement(counts[True, True], counts[True, False], counts[False, True], counts[False, False])
    return found if found.n else None


@dataclass(frozen=True, slots=True)
class Ranking:
    """A judge's ranking within groups, compared with the recorded one.

    Attributes:
        groups: Groups that count: three subjects or more, with at least two different recorded scores.
        spearman: Mean over groups of Spearman's rank correlation, ties at their mean rank; 0 for a group whose
            subjects all have the same score from the judge.
        gain_kept: Gain over a random choice from taking each group's best by the judge, as a share of the gain from
            taking its best by the recorded scores. Ties take the first, as SEAL does.
    """

    groups: int
    spearman: float
    gain_kept: float


def ranking(groups: Iterable[Sequence[tuple[float, float]]]) -> Ranking | None:
    """Compares scores (judge, reference) within groups of subjects; None if no group counts."""
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
    """Ranks from 1 for the smallest; ties get their mean rank."""
    ordered = sorted(values)
    return [ordered.index(value) + (ordered.count(value) + 1) / 2 for value in values]
