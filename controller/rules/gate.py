"""The gate: what a policy forgot is measured before it is published; if the config asks, it is compared with the best
policy so far on the held-out contexts, and a version that was trained on a document with the version before it on the
document's exam. A policy that is refused is stored, but the run does not continue from it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from controller.retry import gather_or_cancel
from controller.rules.scores import figures, paired_gain, policy_scores
from controller.rules.setup import Setup
from sealkit.config import GateConfig, RunConfig
from sealkit.domains.base import Context
from sealkit.resources import GateState, PolicyVersion, Trial
from sealkit.rpc.protocols import Evaluator
from sealkit.stats import paired_bootstrap
from sealkit.types import Evaluation, EvaluationRequest, Outcome, Policy, Query, Retention, Verdict, accuracy


async def measured(
    theta: PolicyVersion,
    setup: Setup,
    evaluator: Evaluator,
    contexts: Sequence[Context] = (),
    before: Sequence[Verdict] = (),
) -> PolicyVersion:
    """The policy with its forgetting on the retention suite and its KL, both against the base model, the gate's
    decision, and its verdicts and accuracy on each of `contexts`. `before`: the verdicts of the version before it on
    what it must not forget either. Raises the evaluator's errors."""
    config, subject = setup.config.evaluation, Policy(name=theta.name, adapter=theta.adapter)

    async def ask(queries: Sequence[Query], *, whole: bool = False) -> Evaluation:
        request = EvaluationRequest(
            policy=subject,
            queries=tuple(queries),
            sampling=config.sampling,
            judge=setup.judge,
            retention_queries=setup.retention if whole else (),
            retention_limit=config.retention_limit,
            measure_divergence=whole and config.divergence,
        )
        return await evaluator.evaluate(request)

    rows = [ask(setup.queries(context)) for context in contexts]
    if theta.adapter is None:
        answers = await gather_or_cancel(*rows)
        found = theta.changed(forgetting=0.0, gate=GateState.PASSED, gate_reason="the base model itself")
    else:
        whole, *answers = await gather_or_cancel(ask((), whole=True), *rows)
        state, reason = verdict(whole.retention, setup.config.gate)
        if state is not GateState.REFUSED and (fault := _lost_too_much(before, answers, setup.config.gate)):
            state, reason = GateState.REFUSED, fault
        found = theta.changed(
            retention=whole.retention,
            divergence=whole.divergence,
            forgetting=whole.retention.forgetting if whole.retention else None,
            gate=state,
            gate_reason=reason,
            usage=theta.usage + whole.usage,
        )
    scores = {c.context_id: accuracy(answer.verdicts) for c, answer in zip(contexts, answers, strict=True)}
    return found.changed(
        usage=sum((answer.usage for answer in answers), found.usage),
        scores={context: score for context, score in scores.items() if score is not None},
        verdicts=tuple(one for answer in answers for one in answer.verdicts),
    )


def _lost_too_much(before: Sequence[Verdict], answers: Sequence[Evaluation], config: GateConfig) -> str:
    """Why a version is refused because of what it forgot of earlier documents; empty if it is not."""
    after = {one.query_id: one.outcome for answer in answers for one in answer.verdicts}
    right = [one.query_id for one in before if one.outcome is Outcome.CORRECT]
    graded = [name for name in right if after.get(name, Outcome.UNGRADED) is not Outcome.UNGRADED]
    found = paired_bootstrap([after[name] is Outcome.CORRECT for name in graded], [True] * len(graded))
    if found is None or found.low <= config.max_forgetting:
        return ""
    return (
        f"it forgot {found.mean:.2f} [{found.low:.2f}, {found.high:.2f}] of {len(graded)} questions on earlier "
        f"documents; gate.max_forgetting is {config.max_forgetting:g}"
    )


def verdict(retention: Retention | None, config: GateConfig) -> tuple[GateState, str]:
    """The decision and its reason: refused if the whole 95 % interval of forgetting is above the limit."""
    if retention is None:
        return GateState.UNMEASURED, "there is no retention suite"
    found = (
        f"it forgot {retention.forgetting:.2f} [{retention.forgetting_low:.2f}, {retention.forgetting_high:.2f}] of "
        f"{retention.kept} retention questions"
    )
    if retention.forgetting_low > config.max_forgetting:
        return GateState.REFUSED, f"{found}; gate.max_forgetting is {config.max_forgetting:g}"
    return GateState.PASSED, found


_ROUNDING = 1e-9
"""Two means of the same scores may differ by this much."""


def pending(made: PolicyVersion, config: GateConfig) -> PolicyVersion:
    """A measured policy; pending, if it is still to be compared on the held-out contexts."""
    if config.held_out == "off" or made.gate is GateState.REFUSED:
        return made
    return made.changed(gate=GateState.PENDING, gate_reason="it is being compared on the held-out contexts")


def compared(theta: PolicyVersion, made: PolicyVersion, trials: Sequence[Trial], config: GateConfig) -> PolicyVersion:
    """The pending policy with its score on the held-out contexts and the gate's decision. `trials`: those that scored
    it, and those that scored `theta`, the best policy so far. Refused if there is no context to compare them on."""
    scores = policy_scores(trials, made.name)
    mean, gain = scores.mean(), paired_gain(policy_scores(trials, theta.name).means(), scores.means(), trials)
    state, reason = verdict(made.retention, config)
    if gain is None:
        state, found = GateState.REFUSED, f"no held-out context has a score of it and of {theta.name}"
    else:
        found = f"its self-edits minus those of {theta.name}, the best policy before it: {figures(gain)}"
        if gain.mean < -_ROUNDING if config.held_out == "not_worse" else gain.low <= 0:
            state, found = GateState.REFUSED, f'{found}; gate.held_out is "{config.held_out}"'
    return made.changed(gate=state, gate_reason=f"{reason}; {found}", held_out_accuracy=mean.mean if mean else None)


def compared_on_exam(theta: PolicyVersion, made: PolicyVersion, queries: Collection[str]) -> PolicyVersion:
    """A measured version that was trained on a document: refused if it answers the document's exam, the queries of
    these ids, no better than `theta`, the version before it."""
    if made.gate is GateState.REFUSED:
        return made
    before, after = (
        sum(one.outcome is Outcome.CORRECT for one in version.verdicts if one.query_id in queries)
        for version in (theta, made)
    )
    if after > before:
        return made
    return made.changed(
        gate=GateState.REFUSED,
        gate_reason=f"it answers {after} of {len(queries)} questions of the document's exam right, and {before} before",
    )


def next_policy(theta: PolicyVersion, made: PolicyVersion) -> PolicyVersion:
    """θ_{t+1}: the policy that round t made, or θ_t if that is θ_t itself or the gate refused it."""
    return made if made.gate.adopted else theta


def adapter_limit(config: RunConfig) -> tuple[str, float]:
    """The setting that limits what the adapter of a trial may forget, and its value. A routed adapter answers only
    prompts about its passage, so it may forget more than a version."""
    gate = config.gate
    if config.adapt.commit == "route" and gate.max_adapter_forgetting > gate.max_forgetting:
        return "gate.max_adapter_forgetting", gate.max_adapter_forgetting
    return "gate.max_forgetting", gate.max_forgetting


def within_gate(trial: Trial, config: RunConfig) -> bool:
    """Whether the adapter of a trial forgot little enough to be committed; true if its retention was not measured."""
    return trial.retention is None or trial.retention.forgetting_low <= adapter_limit(config)[1]
