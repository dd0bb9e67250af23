"""Learning documents on an alias: one after the other, each wholly or not at all.

    begin    θ_0: the version that the alias points to, or the base model
    restore  train the adapters again that θ_0 routes to and that the store has lost
    forget   a version of all that θ_0 was trained on but the documents to forget; then their texts are deleted
    read     the bytes of each document as passages; those that the alias knows already are skipped
    examine  generate an exam on each passage, of what the base model does not know
    for each document:
        E-step   k self-edits for each of its passages; train an adapter on each; reward it on the passage's exam
        commit   a version of all that θ_t was trained on, without the document's older version, and of the best
                 self-edit of each passage that helped and forgot little enough: routes to their adapters, or one
                 adapter on all of them
        measure  what it forgot: of the retention suite, and of the exams of all documents that it must know
        gate     θ_{t+1}: the alias points to it; or it is refused, if it forgot too much or answers the document's
                 exam no better than θ_t, and the alias stays as it is

A document is one round in the database, so this can stop at any line and be started again from the top.
"""

from __future__ import annotations

from controller.db.documents import StoredDocument
from controller.retry import gather_or_cancel
from controller.rules.adoption import outcome_of, why_none_kept
from controller.rules.gate import compared_on_exam
from controller.run.adapt import best_of
from controller.run.learn_steps import LearnSteps
from controller.run.rest_em import group_of
from sealkit.errors import GateRefused
from sealkit.resources import GateState, PolicyVersion, RoundStage, TrialPhase


async def learn(run: LearnSteps) -> None:
    """All documents of a run."""
    theta = await run.begin()
    await run.restore(theta)
    await run.read(theta)
    await run.examine()
    theta = await run.first_policy()
    if run.config.adapt.forget:
        theta = await run.open_round(0, theta) or await forget(run, theta)
        await run.delete_forgotten(theta)
    for document in await run.documents():
        t = document.round
        assert t is not None  # only those are listed
        theta = await run.open_round(t, theta) or await learn_document(run, t, theta, document)


async def learn_document(run: LearnSteps, t: int, theta: PolicyVersion, document: StoredDocument) -> PolicyVersion:
    """One document; returns θ_{t+1}, or θ_t if it was not adopted."""
    await run.stage(t, RoundStage.E_STEP)
    contexts = run.contexts_of(document)
    groups = await gather_or_cancel(*(group_of(run, t, TrialPhase.E_STEP, theta, one) for one in contexts))
    best = [trial for group in groups for trial in await best_of(run, group)]
    await run.stage(t, RoundStage.COMMIT)
    await run.select(t, best)
    exam = run.queries_of(contexts)
    if not best:
        why = why_none_kept(groups, run.config) if groups else await run.why_no_exam(document)
        return await run.close_round(t, theta, theta, kept=0, scored=False, document=outcome_of(theta, None, exam, why))
    earlier = await run.trials_without(theta, [document])
    made = await run.commit(t, theta, [*earlier, *(trial.name for trial in best)])
    made = await run.measured(made, before=await run.verdicts_on(theta, earlier))
    made = compared_on_exam(theta, made, exam)
    outcome = outcome_of(theta, made, exam, "" if made.gate.adopted else made.gate_reason)
    return await run.close_round(t, theta, made, kept=len(best), scored=False, document=outcome)


async def forget(run: LearnSteps, theta: PolicyVersion) -> PolicyVersion:
    """θ_1, which was never trained on the documents to forget. Raises NothingToForget if θ_0 does not know one of them;
    GateRefused, and nothing is deleted, if the gate refuses θ_1."""
    await run.stage(0, "forget")
    left = await run.trials_without(theta, await run.to_forget(theta))
    made = await run.measured(await run.commit(0, theta, left))
    if made.gate is GateState.REFUSED:
        raise GateRefused(
            f"the version without the documents is refused, so nothing was forgotten or deleted: {made.gate_reason}; "
            "start again with a higher gate.max_forgetting"
        )
    return await run.close_round(0, theta, made, kept=len(left), scored=False)
