"""ReST^EM over self-edits (SEAL, arXiv 2506.10943, algorithm 1).

    for each round t:
        E-step   sample k self-edits for each context under θ_t; train an adapter on each; reward it on held-out queries
        M-step   SFT on the self-edits that selection keeps gives θ_{t+1}, unless the gate refuses it

Additions to the paper: training on the raw passage with each group's budget, the score of every policy on held-out
contexts, and the gate, which refuses a policy that forgot too much or, if the config asks, is no better than θ_t, so
that θ is always the best policy so far. The run can stop at any line and be started again from the top: each step of
`RunSteps` finds in the database what was done before, and continues from there.
"""

from __future__ import annotations

from controller.retry import gather_or_cancel
from controller.rules.gate import compared
from controller.rules.selection import Group, chosen
from controller.run.steps import RunSteps
from sealkit.domains.base import Context
from sealkit.resources import GateState, PolicyVersion, RoundStage, Trial, TrialPhase


async def rest_em(run: RunSteps) -> None:
    """All rounds of a run."""
    theta = await run.first_policy()
    for t in range(run.config.rounds):
        # The scoring of θ_t does not depend on round t, so it uses the capacity that the E-step leaves in the services.
        following, _ = await gather_or_cancel(one_round(run, t, theta), score(run, theta))
        theta = following or theta
    await run.stage(run.config.rounds - 1, RoundStage.LAST_POLICY)
    await score(run, theta)


async def one_round(run: RunSteps, t: int, theta: PolicyVersion) -> PolicyVersion:
    """One E-step and one M-step; returns θ_{t+1}."""
    following = await run.open_round(t, theta)
    return following or await m_step(run, t, theta, await e_step(run, t, theta))


async def e_step(run: RunSteps, t: int, theta: PolicyVersion) -> list[Trial]:
    """Tries k self-edits for each context of the round; returns the trials that selection keeps."""
    await run.stage(t, RoundStage.E_STEP)
    contexts = run.contexts_of_round(t)
    groups = await gather_or_cancel(*(group_of(run, t, TrialPhase.E_STEP, theta, context) for context in contexts))
    await run.check_any_worked(groups)
    return [trial for group in groups for trial in chosen(group, run.config.selection, await run.verdicts_of(group))]


async def group_of(run: RunSteps, t: int, phase: TrialPhase, theta: PolicyVersion, context: Context) -> Group:
    """A context's group: its self-edits, then the raw passage with the amount of text that they trained on."""
    edits = await run.tried(run.self_edits(t, phase, theta, context))
    passage = await run.tried(await run.passage_only(t, phase, theta, context, edits))
    return Group(edits, passage[0] if passage else None)


async def m_step(run: RunSteps, t: int, theta: PolicyVersion, kept: list[Trial]) -> PolicyVersion:
    """SFT on the kept (prompt, self-edit) pairs, then the gate. The policy stays if nothing was kept or the gate
    refuses the new one."""
    await run.stage(t, RoundStage.M_STEP)
    await run.select(t, kept)
    made = await run.made_policy(t, theta) if kept else theta
    if scored := made.gate is GateState.PENDING:
        await run.stage(t, RoundStage.COMPARISON)
        trials = [*await scoring_trials(run, theta), *await scoring_trials(run, made)]
        made = compared(theta, made, trials, run.config.gate)
    return await run.close_round(t, theta, made, kept=len(kept), scored=scored)


async def score(run: RunSteps, theta: PolicyVersion) -> None:
    """Scores θ's self-edits on held-out contexts."""
    await scoring_trials(run, theta)


async def scoring_trials(run: RunSteps, theta: PolicyVersion) -> list[Trial]:
    """The ended trials that score θ's self-edits on held-out contexts, with the same seeds for every θ."""
    t = run.round_that_made(theta)
    groups = await gather_or_cancel(
        *(group_of(run, t, TrialPhase.HELD_OUT, theta, context) for context in run.held_out)
    )
    return await run.keep_score(theta, groups)
