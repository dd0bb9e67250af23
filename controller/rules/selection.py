"""Selection: which trials of a group the next policy is trained on: the config's rule, then conditions on the kept
ones.

Each rule is a pure function from scores to kept indices; `RULES` has all of them by name.

`best_of_k` is SEAL's rule for passages (the best of five by mean accuracy), `positive` its binary ReST^EM rule for
ARC (arXiv 2506.10943), and `significant` keeps what beats the baseline beyond chance: McNemar's exact paired test on
the verdicts of the same questions, with Holm's step-down over the completions of the group. `all` is no filter: every
self-edit that was scored, to compare the others with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan

from sealkit.config import SelectionConfig
from sealkit.observability.metrics import SELECTED
from sealkit.resources import Trial, TrialState
from sealkit.stats import holm, mcnemar
from sealkit.types import Outcome, Verdict

BothVerdicts = tuple[tuple[Verdict, ...], tuple[Verdict, ...]]

_RIGHT = {Outcome.CORRECT: True, Outcome.INCORRECT: False, Outcome.UNGRADED: None}


@dataclass(frozen=True, slots=True)
class PairedVerdicts:
    """One trial against the baseline, question by question, in the same order.

    Attributes:
        adapter: Whether the adapter answered each question right; None where the judge gave no verdict.
        baseline: The same for the same model without the adapter.

    Raises:
        ValueError: The two differ in length.
    """

    adapter: tuple[bool | None, ...]
    baseline: tuple[bool | None, ...]

    def __post_init__(self) -> None:
        if len(self.adapter) != len(self.baseline):
            raise ValueError(f"{len(self.adapter)} adapter verdicts cannot be paired with {len(self.baseline)}")

    @property
    def won(self) -> int:
        """Questions that only the adapter got right; questions without both verdicts are ignored."""
        return sum(a is True and b is False for a, b in zip(self.adapter, self.baseline, strict=True))

    @property
    def lost(self) -> int:
        """Questions that only the baseline got right."""
        return sum(a is False and b is True for a, b in zip(self.adapter, self.baseline, strict=True))


def best_of_k(rewards: Sequence[float | None]) -> list[int]:
    """Keep the trial with the highest reward, the first of them on ties.

    Args:
        rewards: One reward a trial, in the group's order; None for a trial that was rejected or not graded.

    Returns:
        The one kept index, or nothing when no trial has a reward.

    Raises:
        ValueError: A reward is not a number.
    """
    scored = _scored(rewards)
    return [max(scored, key=lambda pair: pair[1])[0]] if scored else []  # max() returns the first of equals


def positive(rewards: Sequence[float | None]) -> list[int]:
    """Keep every trial with a reward above zero (binary ReST^EM); None never counts.

    Returns:
        The kept indices, ascending.

    Raises:
        ValueError: A reward is not a number.
    """
    return [index for index, reward in _scored(rewards) if reward > 0]


def every(rewards: Sequence[float | None]) -> list[int]:
    """Keep every trial with a reward, whatever it is: no filter but that the self-edit was usable.

    Returns:
        The kept indices, ascending.

    Raises:
        ValueError: A reward is not a number.
    """
    return [index for index, _ in _scored(rewards)]


def _scored(rewards: Sequence[float | None]) -> list[tuple[int, float]]:
    """Pair each reward that is not None with its index; with NaN the choice would depend on the order."""
    scored = [(index, reward) for index, reward in enumerate(rewards) if reward is not None]
    for index, reward in scored:
        if isnan(reward):
            raise ValueError(f"the reward of trial {index} is not a number")
    return scored


def paired_p_value(verdicts: PairedVerdicts) -> float:
    """Return the one-sided exact McNemar p-value that the adapter is no better than the baseline."""
    return mcnemar(verdicts.won, verdicts.lost)


def significant(trials: Sequence[PairedVerdicts | None], *, alpha: float = 0.05) -> list[int]:
    """Keep every trial that beats the baseline at family-wise level alpha (Holm 1979 over the trials of the group).

    Args:
        trials: One entry a trial, in the group's order; None for one that was rejected or not graded, which does not
            count as a comparison.
        alpha: The chance, 0 < alpha < 1, of keeping any trial when none is better than the baseline.

    Returns:
        The kept indices, ascending.

    Raises:
        ValueError: alpha is not between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")
    compared = [(index, trial) for index, trial in enumerate(trials) if trial is not None]
    adjusted = holm([paired_p_value(trial) for _, trial in compared])
    return [index for (index, _), p_value in zip(compared, adjusted, strict=True) if p_value <= alpha]


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a rule chooses from, one entry a trial, in the group's order. `rewards`: None for a trial that was rejected
    or not graded. `verdicts`: the trial's beside the baseline's, None without a reward; empty unless the rule needs
    them."""

    rewards: Sequence[float | None]
    verdicts: Sequence[PairedVerdicts | None] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """A selection rule. `kept` returns the indices of the kept trials; `needs_verdicts`: whether it reads
    `Candidates.verdicts`, which are stored apart from the trials."""

    kept: Callable[[Candidates, SelectionConfig], list[int]]
    needs_verdicts: bool = False


RULES = {
    "all": Rule(lambda group, _: every(group.rewards)),
    "best_of_k": Rule(lambda group, _: best_of_k(group.rewards)),
    "positive": Rule(lambda group, _: positive(group.rewards)),
    "significant": Rule(
        lambda group, config: significant(group.verdicts, alpha=config.significance), needs_verdicts=True
    ),
}
"""By the name in `selection.rule`."""


@dataclass(frozen=True, slots=True)
class Group:
    """The ended trials of one context in one round, in the order of their index; `passage` is the passage-only one."""

    edits: Sequence[Trial]
    passage: Trial | None


def chosen(group: Group, config: SelectionConfig, verdicts: dict[str, BothVerdicts]) -> list[Trial]:
    """The trials of a group that are kept. `verdicts`: by trial name, a trial's and its baseline's; may be empty for a
    rule that does not need them. Only trials with a reward are kept, so none that was rejected, failed, cancelled or
    stopped early; and only those of arms to learn from."""
    rule = RULES[config.rule]
    edits = [trial for trial in group.edits if trial.editor in config.learn_from]
    rewards = [trial.reward if trial.state is TrialState.SUCCEEDED else None for trial in edits]
    pairs = [
        None if reward is None else _paired(*verdicts[trial.name])
        for trial, reward in zip(edits, rewards, strict=True)
        if rule.needs_verdicts
    ]
    indices = rule.kept(Candidates(rewards, pairs), config)
    kept = [edits[i] for i in indices if passes(edits[i], group.passage, config)]
    SELECTED.labels("kept").inc(len(kept))
    SELECTED.labels("dropped").inc(len(edits) - len(kept))
    return kept


def passes(trial: Trial, passage: Trial | None, config: SelectionConfig) -> bool:
    """Whether a trial is better than the baseline and than training on the raw context, if the config asks for that. A
    passage-only trial without a reward cannot be beaten: there is nothing to compare with."""
    if config.must_gain and not (trial.accuracy or 0.0) > (trial.baseline_accuracy or 0.0):
        return False
    if not config.must_beat_passage_only:
        return True
    beaten = passage.reward if passage is not None else None
    return beaten is not None and trial.reward is not None and trial.reward > beaten


def distinct(kept: Sequence[Trial]) -> list[Trial]:
    """The first of those self-edits of one context that differ at most in white space, in their order."""
    first: dict[tuple[str, str], Trial] = {}
    for trial in kept:
        first.setdefault((trial.context_id, " ".join(trial.completion.split())), trial)
    return list(first.values())


def _paired(adapter: tuple[Verdict, ...], baseline: tuple[Verdict, ...]) -> PairedVerdicts:
    return PairedVerdicts(
        adapter=tuple(_RIGHT[verdict.outcome] for verdict in adapter),
        baseline=tuple(_RIGHT[verdict.outcome] for verdict in baseline),
    )
