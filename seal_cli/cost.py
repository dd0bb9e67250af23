"""Costs and cost estimates of runs, formatted for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from seal_cli.console import counted
from sealkit.report_page.labels import STAGES, duration
from sealkit.reports import Cost, Power, RunEstimate
from sealkit.types import Usage


def cost_facts(cost: Cost) -> Iterable[tuple[str, str]]:
    """Lines of a report: label and value. Empty if nothing was measured."""
    if not cost.stages:
        return
    total = sum(cost.stages.values(), Usage())
    if total.device_seconds:
        parts = ", ".join(f"{_stage(stage)} {usage.device_seconds:,.1f} s" for stage, usage in cost.stages.items())
        yield "device time", f"{duration(total.device_seconds)} ({parts})"
    parts = ", ".join(f"{_stage(stage)} {usage.tokens:,}" for stage, usage in cost.stages.items())
    yield "tokens", f"{total.tokens:,} ({parts})"
    each = []
    if cost.tokens_per_accepted is not None and cost.device_seconds_per_accepted is not None:
        each.append(
            f"{cost.device_seconds_per_accepted:,.1f} s and {cost.tokens_per_accepted:,.0f} tokens for each of "
            f"{cost.accepted} accepted self-edits"
        )
    if cost.device_seconds_per_point is not None:
        each.append(f"{cost.device_seconds_per_point:,.1f} s for each point (0.01) of gain")
    if each:
        yield "that is", "; ".join(each)
    if cost.money is not None:
        yield "money", money(cost)


def arm_cost_facts(arms: Mapping[str, Cost]) -> Iterable[tuple[str, str]]:
    """A line for each editor whose self-edits were sampled: tokens to write them, and the cost in money."""
    for editor, cost in arms.items():
        wrote = cost.stages.get("generate")
        if wrote is None:
            continue
        paid = f", {money(cost)} with trying them" if cost.money is not None else ""
        yield f"self-edits by {editor}", f"{wrote.tokens:,} tokens to write{paid}"


def cost_rows(rounds: Mapping[int, Cost], whole: Cost) -> Iterable[tuple[str, ...]]:
    """Rows of a listing: round, stage, tokens read, written and trained on, device seconds, accepted, money."""
    for name, cost in [*((f"round {number + 1}", cost) for number, cost in sorted(rounds.items())), ("run", whole)]:
        for stage, usage in cost.stages.items():
            yield (name, _stage(stage), *_usage(usage), "", "")
        total = sum(cost.stages.values(), Usage())
        yield (name, "in all", *_usage(total), str(cost.accepted), money(cost))


COST_COLUMNS = ("", "", "read", "written", "trained on", "device s", "accepted", "money")


def estimate_facts(estimate: RunEstimate) -> Iterable[tuple[str, str]]:
    """Lines of an estimate: label and value."""
    yield "trials", f"{estimate.trials:,}"
    if estimate.based_on:
        usage = estimate.usage
        yield (
            "tokens",
            (
                f"{usage.tokens:,} ({usage.prompt_tokens:,} read, {usage.completion_tokens:,} written, "
                f"{usage.train_tokens:,} trained on)"
            ),
        )
        yield "device time", duration(usage.device_seconds)
        yield "wall time", duration(estimate.wall_seconds)
    yield "by", estimate.basis
    if estimate.power:
        yield "can show", power_line(estimate.power)


def power_line(power: Power) -> str:
    """One sentence: the smallest difference of two policies that a run can show."""
    by = "measured" if power.measured else "assumed"
    return (
        f"a difference of {power.detectable:.2f} or more between two policies, with 80 % probability: {power.contexts} "
        f"held-out contexts with {counted(power.samples, 'self-edit')} each (standard deviation of the "
        f"differences {power.deviation:.2f}, {by}); half of it with four times the contexts"
    )


def money(cost: Cost) -> str:
    """Empty if the config has no price."""
    return "" if cost.money is None else f"{cost.money:,.2f} {cost.currency}".rstrip()


def _stage(stage: str) -> str:
    return STAGES.get(stage, stage)


def _usage(usage: Usage) -> tuple[str, str, str, str]:
    return (
        f"{usage.prompt_tokens}",
        f"{usage.completion_tokens}",
        f"{usage.train_tokens}",
        f"{usage.device_seconds:.1f}",
    )
