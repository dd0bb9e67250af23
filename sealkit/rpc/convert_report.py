"""Reports, estimates and reruns of `sealkit.resources` to the messages of the controller and back."""

from __future__ import annotations

from math import isnan, nan

from google.protobuf.message import Message
from seal.controller.v1 import resources_pb2 as pb2

from sealkit.resources import Continual, Cost, Difference, Estimate, ReportRow, Rerun, RunEstimate, RunReport
from sealkit.rpc.convert import usage_from_pb, usage_to_pb
from sealkit.rpc.convert_controller import (
    policy_version_from_pb,
    policy_version_to_pb,
    trial_from_pb,
    trial_to_pb,
)


def estimate_to_pb(estimate: Estimate | None) -> pb2.Estimate | None:
    return pb2.Estimate(**estimate.model_dump()) if estimate else None


def estimate_from_pb(pb: pb2.Estimate) -> Estimate:
    return Estimate(mean=pb.mean, low=pb.low, high=pb.high, n=pb.n)


def run_report_to_pb(report: RunReport) -> pb2.RunReport:
    return pb2.RunReport(
        rows=[
            pb2.ReportRow(key=r.key, label=r.label, split=r.split, accuracy=estimate_to_pb(r.accuracy))
            for r in report.rows
        ],
        trial_counts=report.trial_counts,
        kept=report.kept,
        trial_forgetting=estimate_to_pb(report.trial_forgetting),
        policies=[policy_version_to_pb(p) for p in report.policies],
        stage_seconds=report.stage_seconds,
        rl_gain=estimate_to_pb(report.rl_gain),
        verdict=report.verdict,
        usage=usage_to_pb(report.usage),
        wall_seconds=report.wall_seconds,
        cost=cost_to_pb(report.cost),
        round_costs={number: cost_to_pb(cost) for number, cost in report.round_costs.items()},
        arm_gains={editor: pb2.Estimate(**gain.model_dump()) for editor, gain in report.arm_gains.items()},
        arm_costs={editor: cost_to_pb(cost) for editor, cost in report.arm_costs.items()},
        continual=continual_to_pb(report.continual) if report.continual else None,
    )


def run_report_from_pb(pb: pb2.RunReport) -> RunReport:
    return RunReport(
        rows=tuple(
            ReportRow(key=r.key, label=r.label, split=r.split, accuracy=estimate_from_pb(r.accuracy)) for r in pb.rows
        ),
        trial_counts=dict(pb.trial_counts),
        kept=pb.kept,
        trial_forgetting=estimate_from_pb(pb.trial_forgetting) if pb.HasField("trial_forgetting") else None,
        policies=tuple(policy_version_from_pb(p) for p in pb.policies),
        stage_seconds=dict(pb.stage_seconds),
        rl_gain=estimate_from_pb(pb.rl_gain) if pb.HasField("rl_gain") else None,
        verdict=pb.verdict,
        usage=usage_from_pb(pb.usage),
        wall_seconds=pb.wall_seconds,
        cost=cost_from_pb(pb.cost),
        round_costs={number: cost_from_pb(cost) for number, cost in pb.round_costs.items()},
        arm_gains={editor: estimate_from_pb(gain) for editor, gain in pb.arm_gains.items()},
        arm_costs={editor: cost_from_pb(cost) for editor, cost in pb.arm_costs.items()},
        continual=continual_from_pb(pb.continual) if pb.HasField("continual") else None,
    )


def cost_to_pb(cost: Cost) -> pb2.Cost:
    plain = cost.model_dump(exclude={"stages"}, exclude_none=True)
    return pb2.Cost(stages={stage: usage_to_pb(usage) for stage, usage in cost.stages.items()}, **plain)


def cost_from_pb(pb: pb2.Cost) -> Cost:
    optional = ("device_seconds_per_accepted", "tokens_per_accepted", "device_seconds_per_point", "money")
    return Cost(
        stages={stage: usage_from_pb(usage) for stage, usage in pb.stages.items()},
        accepted=pb.accepted,
        currency=pb.currency,
        **{name: getattr(pb, name) for name in optional if name in _set_fields(pb)},
    )


def continual_to_pb(continual: Continual) -> pb2.Continual:
    rows = [pb2.ContinualRow(accuracies=[nan if a is None else a for a in row]) for row in continual.matrix]
    return pb2.Continual(
        contexts=continual.contexts,
        matrix=rows,
        just_learned=estimate_to_pb(continual.just_learned),
        at_end=estimate_to_pb(continual.at_end),
        bwt=estimate_to_pb(continual.bwt),
        forgetting=estimate_to_pb(continual.forgetting),
    )


def continual_from_pb(pb: pb2.Continual) -> Continual:
    means = ("just_learned", "at_end", "bwt", "forgetting")
    return Continual(
        contexts=tuple(pb.contexts),
        matrix=tuple(tuple(None if isnan(a) else a for a in row.accuracies) for row in pb.matrix),
        **{name: estimate_from_pb(getattr(pb, name)) for name in means if name in _set_fields(pb)},
    )


def run_estimate_to_pb(estimate: RunEstimate) -> pb2.RunEstimate:
    return pb2.RunEstimate(**estimate.model_dump(exclude={"usage"}), usage=usage_to_pb(estimate.usage))


def run_estimate_from_pb(pb: pb2.RunEstimate) -> RunEstimate:
    return RunEstimate(
        trials=pb.trials,
        usage=usage_from_pb(pb.usage),
        wall_seconds=pb.wall_seconds,
        based_on=pb.based_on,
        basis=pb.basis,
    )


def rerun_to_pb(rerun: Rerun) -> pb2.Rerun:
    return pb2.Rerun(
        trial=trial_to_pb(rerun.trial),
        original=rerun.original,
        identical=rerun.identical,
        differences=[pb2.Difference(**difference.model_dump()) for difference in rerun.differences],
    )


def rerun_from_pb(pb: pb2.Rerun) -> Rerun:
    return Rerun(
        trial=trial_from_pb(pb.trial),
        original=pb.original,
        identical=pb.identical,
        differences=tuple(Difference(field=d.field, recorded=d.recorded, rerun=d.rerun) for d in pb.differences),
    )


def _set_fields(pb: Message) -> set[str]:
    return {field.name for field, _ in pb.ListFields()}
