"""Adaptation: learns the contexts in sequence and commits each.

    for each context i, in the order of the dataset:
        E-step   sample k self-edits under θ_i; train an adapter on each; reward it on held-out queries
        commit   the best of those that forgot little enough gives θ_{i+1}: joined to θ_i, or with all that was kept
                 before, by routes or by consolidation
        measure  what θ_{i+1} forgot, and its accuracy on every context of the run: row i + 1 of R
        gate     θ_{i+1} is published, or refused: then θ_i stays, and the refused version stays in the database

A context is one round in the database, so an adaptation can stop at any line and be started again from the top, like
`rest_em`. There are no held-out contexts: nothing here learns to write better self-edits.
"""

from __future__ import annotations

from controller.rules.gate import within_gate
from controller.rules.selection import Group, chosen
from controller.run.rest_em import group_of
from controller.run.steps import RunSteps
from sealkit.domains.base import Context
from sealkit.resources import PolicyVersion, RoundStage, Trial, TrialPhase


async def adapt(run: RunSteps) -> None:
    """All contexts of a run."""
    theta = await run.first_policy()
    for t, context in enumerate(run.train):
        theta = await run.open_round(t, theta) or await learn(run, t, theta, context)


async def learn(run: RunSteps, t: int, theta: PolicyVersion, context: Context) -> PolicyVersion:
    """One context; returns θ_{t+1}, or θ_t if no trial helped or the gate refused."""
    await run.stage(t, RoundStage.E_STEP)
    group = await group_of(run, t, TrialPhase.E_STEP, theta, context)
    await run.check_any_worked([group])
    best = await best_of(run, group)
    await run.stage(t, RoundStage.COMMIT)
    await run.select(t, best)
    made = await run.measured(await commit(run, t, theta, best[0])) if best else theta
    return await run.close_round(t, theta, made, kept=len(best), scored=False)


async def commit(run: RunSteps, t: int, theta: PolicyVersion, best: Trial) -> PolicyVersion:
    """θ_{t+1}: the trial's adapter joined to θ_t's; or a version of the trial and all that θ_t was trained on."""
    if run.config.adapt.commit == "join":
        return await run.join(t, theta, best)
    return await run.commit(t, theta, [*theta.trials, best.name])


async def best_of(run: RunSteps, group: Group) -> list[Trial]:
    """The trial to commit: the one with the highest reward (the first on ties) of those within the gate that selection
    keeps; an empty list if there is none."""
    safe = Group([trial for trial in group.edits if within_gate(trial, run.config)], group.passage)
    kept = chosen(safe, run.selection, await run.verdicts_of(safe))
    return sorted(kept, key=lambda trial: -(trial.reward or 0.0))[:1]
