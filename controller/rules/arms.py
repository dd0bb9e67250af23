"""Who writes the self-edits of a group: the arms of a run's config; and how many trials that makes. The policy is one
of them; the others are there to be compared with it, unless `selection.learn_from` names them too."""

from __future__ import annotations

from collections.abc import Collection

from controller.db.runs import PlannedTrials
from sealkit.config import RunConfig
from sealkit.domains.base import Domain
from sealkit.errors import InvalidConfig
from sealkit.resources import Editor, TrialPhase

WRITERS: frozenset[str] = frozenset({Editor.POLICY, Editor.BASE})
"""Who the generator can write as."""


def edits_of_group(
    config: RunConfig, phase: TrialPhase, ready: Collection[str], *, first: bool
) -> list[tuple[str, int]]:
    """Editors and how many self-edits each writes for a context: k, or `held_out.samples` on held-out contexts, where
    only the policy writes again once it is not the first. What the domain has `ready` is tried once."""
    scoring = phase is TrialPhase.HELD_OUT
    count = config.held_out.samples if scoring else config.editor.k
    arms = [arm for arm in config.editor.arms if arm == Editor.POLICY or first or not scoring]
    return [(arm, min(count, 1) if arm in ready else count) for arm in arms]


def planned_trials(config: RunConfig, *, train: int, held_out: int, ready: Collection[str] = ()) -> PlannedTrials:
    """Trials of a run with so many contexts. An adaptation tries every train context once, and no held-out one.
    `ready`: editors whose self-edits the domain has."""
    adapts = config.task == "adapt"
    groups = train if adapts else config.rounds * min(config.contexts_per_round, train)
    scored = 0 if adapts or not config.held_out.samples else held_out
    tried = groups * _edits(config, TrialPhase.E_STEP, ready, first=True)
    of_first = scored * _edits(config, TrialPhase.HELD_OUT, ready, first=True)
    of_others = config.rounds * scoring_trials(config, scored)
    passages = int(config.passage_only) * (groups + scored)
    return PlannedTrials(groups=groups, edits=tried + of_first + of_others, passages=passages)


def scoring_trials(config: RunConfig, held_out: int) -> int:
    """Trials that score one policy after the first on so many held-out contexts. `planned_trials` counts one such
    policy a round; a round that leaves the policy as it is takes them off again."""
    return 0 if config.task == "adapt" else held_out * _edits(config, TrialPhase.HELD_OUT, (), first=False)


def _edits(config: RunConfig, phase: TrialPhase, ready: Collection[str], *, first: bool) -> int:
    """Self-edits of one group."""
    return sum(count for _, count in edits_of_group(config, phase, ready, first=first))


def outside_editor(editor: str, ready: Collection[str]) -> str:
    """The name of the outside model that writes for this arm; empty where the generator's own model or the domain
    does."""
    return "" if editor in WRITERS or editor in ready else editor


def check_arms(config: RunConfig, domain: Domain, ready: Collection[str], outside: Collection[str]) -> None:
    """Refuses arms that nobody writes, and what the domain cannot do for them. `ready`: names for which the domain has
    self-edits; `outside`: those of the outside editors. Raises InvalidConfig."""
    known = WRITERS | set(ready) | set(outside)
    faults = [
        (f"config.editor.arms.{i}", f"nobody is named {arm!r}; there are {', '.join(sorted(known))}")
        for i, arm in enumerate(config.editor.arms)
        if arm not in known
    ]
    if len(set(config.editor.arms)) < len(config.editor.arms):
        faults.append(("config.editor.arms", "an arm comes twice"))
    if config.editor.constrained and not domain.completion_schema:
        faults.append(("config.editor.constrained", f"completions of the domain {domain.name} have no schema"))
    if faults:
        raise InvalidConfig("; ".join(f"{path}: {message}" for path, message in faults), fields=tuple(faults))
