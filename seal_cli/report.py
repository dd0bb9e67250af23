"""A run's report as tables, readable without knowing SEAL."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from seal_cli.console import duration, out, styled
from seal_cli.continual import CONTINUAL_LEGEND, continual_facts, matrix_table
from seal_cli.cost import STAGES, arm_cost_facts, cost_facts
from sealkit.resources import Estimate, GateState, PolicyVersion, ReportRow, Run, RunReport

SPLITS = {
    "train": "Contexts that the policy learns from",
    "held_out": "Held-out contexts, never trained on",
}
LEGEND = (
    "Accuracy: the share of questions answered right without seeing the text, averaged over contexts (n), with its "
    "95 % interval. No adapter: the model as it is. Passage only: trained on the text itself. Self-edits: trained "
    "on what the model wrote about the text; θ_0 wrote before, θ_1, θ_2 … after learning from what helped. Best of k "
    "is chosen by these same questions, so it is an upper bound. Each round has its own contexts: compare "
    "policies on the held-out ones."
)


def print_report(run: Run, report: RunReport, store: Path | None) -> None:
    """Prints the report; `store` is the folder of the adapters, if known."""
    out.print()
    out.print(
        f"[bold]{styled(run.display_name or run.name)}[/] · {run.name} · {run.state.value} "
        f"after {duration(report.wall_seconds)}"
    )
    for split in dict.fromkeys(row.split for row in report.rows):
        out.print()
        out.print(_accuracy_table(split, [row for row in report.rows if row.split == split]))
    out.print(Text(LEGEND, style="dim"))
    out.print()
    if report.continual and (table := matrix_table(report.continual)):
        out.print(table)
        out.print(Text(CONTINUAL_LEGEND, style="dim"))
        out.print()
    out.print(_facts(report, store))
    out.print()
    out.print(f"[bold]{styled(report.verdict)}[/]")
    if run.unread_config:
        unread = f"this version cannot read {', '.join(run.unread_config)}, so the run cannot continue."
        out.print()
        out.print(f"Another version stored the config; {unread}", markup=False)


def _accuracy_table(split: str, rows: Iterable[ReportRow]) -> Table:
    table = Table(
        title=SPLITS.get(split, split),
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("")
    table.add_column("accuracy", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("n", justify="right")
    for row in rows:
        table.add_row(
            styled(row.label),
            f"{row.accuracy.mean:.3f}",
            f"{row.accuracy.low:.3f} – {row.accuracy.high:.3f}",
            str(row.accuracy.n),
        )
    return table


def _facts(report: RunReport, store: Path | None) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    for label, value in _fact_rows(report, store):
        table.add_row(label, styled(value))
    return table


def _fact_rows(report: RunReport, store: Path | None) -> Iterable[tuple[str, str]]:
    yield "kept", f"the policy was trained on {report.kept} self-edits"
    yield "trials", ", ".join(f"{count} {outcome}" for outcome, count in report.trial_counts.items()) or "none"
    if report.trial_forgetting:
        yield "forgetting by a trial's adapter", _signed(report.trial_forgetting)
    for index, policy in enumerate(report.policies):
        if policy.forgetting is not None:
            yield f"forgetting by θ_{index}", _forgot(policy)
    if report.continual:
        yield from continual_facts(report.continual)
    if report.stage_seconds:
        parts = (f"{STAGES.get(stage, stage)} {seconds:.1f} s" for stage, seconds in report.stage_seconds.items())
        yield "seconds a trial", f"{', '.join(parts)} (shared with other trials, waiting included)"
    if trials := sum(report.trial_counts.values()):
        each = report.wall_seconds / trials
        yield "in all", f"{report.wall_seconds:.0f} s, {each:.1f} s for each of {trials} trials, M-steps included"
    yield from cost_facts(report.cost)
    if report.arm_gains:
        yield from arm_cost_facts(report.arm_costs)
    if report.policies:
        published = [policy for policy in report.policies if policy.gate is not GateState.REFUSED]
        yield "policies", " → ".join(policy.name for policy in published)
    if store:
        yield "adapters", f"{store / 'adapters'} (PEFT's format)"


def _forgot(policy: PolicyVersion) -> str:
    interval = f" [{r.forgetting_low:+.3f}, {r.forgetting_high:+.3f}]" if (r := policy.retention) else ""
    refused = ": refused by the gate" if policy.gate is GateState.REFUSED else ""
    return f"{policy.forgetting:+.3f}{interval} ({policy.name}){refused}"


def _signed(estimate: Estimate) -> str:
    return (
        f"{estimate.mean:+.3f} of the retention questions [{estimate.low:+.3f}, {estimate.high:+.3f}], "
        f"n = {estimate.n} trials"
    )
