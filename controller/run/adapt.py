"""Adaptation: the contexts learned one after the other, each committed for good, on one screen.

    for each context i, in the order of the dataset:
        E-step   sample k self-edits under θ_i; train an adapter on each; reward it on held-out queries
        commit   the best of those that forgot little enough, on top of θ_i or by consolidation, gives θ_{i+1}
        measure  what θ_{i+1} forgot, and its accuracy on every context of the run: row i + 1 of R
        gate     published, or refused: then θ_i stays, and the refused version stays in the record

A context is a round of the record, so that an adaptation can be stopped at any line and begun again from the top, as
`round.rest_em` can. What is not kept: held-out contexts; nothing here learns to write better self-edits.
"""

from __future__ import annotations

from controller.rules.gate import within_gate
from controller.rules.selection import Group, chosen
from controller.run.rest_em import group_of
from controller.run.steps import RunSteps
from sealkit.domains.base import Context
from sealkit.resources import PolicyVersion, Trial, TrialPhase


async def adapt(run: RunSteps) -> None:
    """All contexts of a run."""
    theta = await run.first_policy()
    for t, context in enumerate(run.train):
        theta = await run.open_round(t, theta) or await learn(run, t, theta, context)


async def learn(run: RunSteps, t: int, theta: PolicyVersion, context: Context) -> PolicyVersion:
    """One context; θ_{t+1}, or θ_t where nothing helped or what did was refused."""
    await run.stage(t, "E-step")
    group = await group_of(run, t, TrialPhase.E_STEP, theta, context)
    run.check_any_worked([group])
    best = await best_of(run, group)
    await run.stage(t, "commit")
    await run.select(t, best)
    made = await run.measured(await run.commit(t, theta, best[0])) if best else theta
    return await run.close_round(t, theta, made, kept=len(best))


async def best_of(run: RunSteps, group: Group) -> list[Trial]:
    """The trial to commit: of those within the gate that selection keeps, the one with the highest reward, the first on
    ties; none where there is none."""
    safe = Group([trial for trial in group.edits if within_gate(trial, run.config.gate)], group.passage)
    kept = chosen(safe, run.selection, await run.verdicts_of(safe))
    return sorted(kept, key=lambda trial: -(trial.reward or 0.0))[:1]
