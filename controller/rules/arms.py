"""Arms: the editors that write the self-edits of a group, and the number of trials. The policy is one arm; the others
are only compared with it, unless `selection.learn_from` names them too."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from controller.db.runs import PlannedTrials
from sealkit.config import RunConfig
from sealkit.domains.base import Context, Domain, Examines
from sealkit.errors import InvalidConfig
from sealkit.resources import Editor, TrialPhase

WRITERS: frozenset[str] = frozenset({Editor.POLICY, Editor.BASE})
"""Editors that the generator's own model implements."""


def edits_of_group(
    config: RunConfig, phase: TrialPhase, ready: Collection[str], *, first: bool
) -> list[tuple[str, int]]:
    """Editors and the number of self-edits that each writes for a context: k, or `held_out.samples` on held-out
    contexts, where policies after the first are the only arm. A `ready` self-edit of the domain is tried once."""
    scoring = phase is TrialPhase.HELD_OUT
    count = config.held_out.samples if scoring else config.editor.k
    arms = [arm for arm in config.editor.arms if arm == Editor.POLICY or first or not scoring]
    return [(arm, min(count, 1) if arm in ready else count) for arm in arms]


def ready_arms(domain: Domain, contexts: Sequence[Context]) -> set[str]:
    """The editors whose self-edits the domain has for every one of these contexts; without any, for every passage of a
    document."""
    if not contexts and isinstance(domain, Examines):
        contexts = [domain.of_passage("title", (), "text")]
    return set.intersection(*(set(domain.ready_made(context)) for context in contexts)) if contexts else set()


def planned_trials(config: RunConfig, *, train: int, held_out: int, ready: Collection[str] = ()) -> PlannedTrials:
    """Number of trials of a run with so many contexts. An adaptation tries every train context once, and no held-out
    one. `ready`: editors whose self-edits the domain has."""
    adapts = config.task == "adapt"
    groups = train if adapts else config.rounds * min(config.contexts_per_round, train)
    scored = 0 if adapts or not config.held_out.samples else held_out
    tried = groups * _edits(config, TrialPhase.E_STEP, ready, first=True)
    of_first = scored * _edits(config, TrialPhase.HELD_OUT, ready, first=True)
    of_others = config.rounds * scoring_trials(config, scored)
    passages = int(config.passage_only) * (groups + scored)
    return PlannedTrials(groups=groups, edits=tried + of_first + of_others, passages=passages)


def scoring_trials(config: RunConfig, held_out: int) -> int:
    """Number of trials that score one policy after the first on so many held-out contexts. `planned_trials` counts one
    new policy a round; if a round leaves the policy unchanged, they are subtracted again."""
    return 0 if config.task == "adapt" else held_out * _edits(config, TrialPhase.HELD_OUT, (), first=False)


def _edits(config: RunConfig, phase: TrialPhase, ready: Collection[str], *, first: bool) -> int:
    """Number of self-edits of one group."""
    return sum(count for _, count in edits_of_group(config, phase, ready, first=first))


def outside_editor(editor: str, ready: Collection[str]) -> str:
    """The name of the outside model that writes for this arm; empty if the generator's own model or the domain does."""
    return "" if editor in WRITERS or editor in ready else editor


def check_arms(config: RunConfig, domain: Domain, ready: Collection[str], outside: Collection[str]) -> None:
    """Checks that every arm, and every editor to learn from, exists and that the domain supports it. `ready`: names for
    which the domain has self-edits; `outside`: names of the outside editors. Raises InvalidConfig."""
    known = WRITERS | set(ready) | set(outside)
    named = {"config.editor.arms": config.editor.arms, "config.selection.learn_from": config.selection.learn_from}
    faults = [
        (f"{path}.{i}", f"unknown editor {editor!r}; use one of {', '.join(sorted(known))}")
        for path, editors in named.items()
        for i, editor in enumerate(editors)
        if editor not in known
    ]
    if len(set(config.editor.arms)) < len(config.editor.arms):
        faults.append(("config.editor.arms", "an arm is listed twice"))
    if config.editor.constrained and not domain.completion_schema:
        faults.append(("config.editor.constrained", f"completions of the domain {domain.name} have no schema"))
    if faults:
        raise InvalidConfig("; ".join(f"{path}: {message}" for path, message in faults), fields=tuple(faults))
