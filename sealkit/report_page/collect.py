"""What the report of a run shows, read through the client: a tenant's client sees only its own runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sealkit.errors import ConfigOutdated, UnknownAlias, UnknownPolicy, UnknownRun
from sealkit.names import full_name
from sealkit.reports import RunReport, TrialMaterial
from sealkit.resources import Alias, Editor, PolicyVersion, Run, Trial, TrialPhase
from sealkit.types import Outcome, Query, Value, Verdict

if TYPE_CHECKING:
    from sealkit.client import SealClient

_BEST = 5
"""Self-edits shown as best, and as worst."""
_CHOSEN = 10
"""Chosen trials whose lost questions are shown."""


class WholeTrial(Value):
    """A trial with its verdicts and what it was asked and trained on. Without material, `without` says why."""

    trial: Trial
    material: TrialMaterial | None = None
    without: str = ""

    @property
    def asked(self) -> list[Asked]:
        """Its questions with both answers, in order. Without material the questions are unknown."""
        queries = {query.query_id: query for query in self.material.queries} if self.material else {}
        before = {verdict.query_id: verdict for verdict in self.trial.baseline_verdicts}
        return [
            Asked(query_id=v.query_id, query=queries.get(v.query_id), before=before.get(v.query_id), after=v)
            for v in self.trial.verdicts
        ]


class Asked(Value):
    """One question of a trial, with the answer without its adapter and the one with it."""

    query_id: str
    query: Query | None
    before: Verdict | None
    after: Verdict

    @property
    def lost(self) -> bool:
        """Whether it was answered right before, and wrong after."""
        right_before = self.before is not None and self.before.outcome is Outcome.CORRECT
        return right_before and self.after.outcome is Outcome.INCORRECT


class Collected(Value):
    """All that the report of a run shows.

    `trials`: without verdicts and reruns. `ancestors`: the policies that the run started from, oldest first. `aliases`:
    those that point to its policies. `best`, `worst`: self-edits by reward. `chosen`: the kept trials that forgot most.
    """

    run: Run
    report: RunReport
    trials: tuple[Trial, ...]
    ancestors: tuple[PolicyVersion, ...] = ()
    aliases: tuple[Alias, ...] = ()
    best: tuple[WholeTrial, ...] = ()
    worst: tuple[WholeTrial, ...] = ()
    chosen: tuple[WholeTrial, ...] = ()


def run_of(client: SealClient, name: str) -> Run:
    """The run of a name: `runs/…`, `aliases/…` (the run that made its policy), or either without its first part. Raises
    UnknownRun, UnknownAlias."""
    if name.startswith("aliases/"):
        return client.get_run(client.get_policy(client.get_alias(name).policy).run)
    try:
        return client.get_run(full_name("runs", name))
    except UnknownRun:
        if name.startswith("runs/"):
            raise
    try:
        return run_of(client, full_name("aliases", name))
    except UnknownAlias as error:
        raise UnknownRun(f"there is neither a run nor an alias {name}", metadata={"run": name}) from error


def collect(client: SealClient, run: Run) -> Collected:
    """Everything that the report of `run` shows. Raises UnknownRun."""
    report = client.report(run.name)
    trials = tuple(trial for trial in client.list_trials(run.name) if trial.phase is not TrialPhase.RERUN)
    ranked = sorted(
        (trial for trial in trials if trial.reward is not None and trial.editor != Editor.PASSAGE_ONLY),
        key=lambda trial: (-(trial.reward or 0.0), trial.name),
    )
    best, worst = ranked[:_BEST], ranked[_BEST:][-_BEST:][::-1]
    kept = sorted((t for t in trials if t.selected), key=lambda t: (-(t.forgetting or 0.0), t.name))[:_CHOSEN]
    whole: dict[str, WholeTrial] = {}

    def wholes(shown: Sequence[Trial]) -> tuple[WholeTrial, ...]:
        for trial in shown:
            if trial.name not in whole:
                whole[trial.name] = whole_trial(client, trial.name)
        return tuple(whole[trial.name] for trial in shown)

    own = {policy.name for policy in report.policies}
    return Collected(
        run=run,
        report=report,
        trials=trials,
        ancestors=_ancestors(client, report.policies),
        aliases=tuple(alias for alias in client.list_aliases() if alias.policy in own),
        best=wholes(best),
        worst=wholes(worst),
        chosen=wholes(kept),
    )


def whole_trial(client: SealClient, name: str) -> WholeTrial:
    """The trial of this name with all that is known of it. Raises UnknownTrial."""
    trial = client.get_trial(name)
    try:
        return WholeTrial(trial=trial, material=client.get_trial_material(name))
    except ConfigOutdated as error:
        return WholeTrial(trial=trial, without=error.message)


def _ancestors(client: SealClient, policies: Sequence[PolicyVersion]) -> tuple[PolicyVersion, ...]:
    """The policies before the run's first, oldest first; they end where one no longer exists."""
    found: list[PolicyVersion] = []
    parent = policies[0].parent if policies else ""
    while parent and parent not in {policy.name for policy in found}:
        try:
            policy = client.get_policy(parent)
        except UnknownPolicy:
            break
        found.append(policy)
        parent = policy.parent
    return tuple(reversed(found))
