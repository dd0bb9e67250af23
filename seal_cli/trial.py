"""A trial whole, readable: the self-edit, what was trained on, and every question with its answers."""

from __future__ import annotations

from collections.abc import Iterable

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from seal_cli.console import out, share, styled
from sealkit.report_page.collect import Asked, WholeTrial
from sealkit.report_page.labels import STAGES
from sealkit.resources import Trial
from sealkit.shown import visible
from sealkit.types import Outcome, TrainingExample, Verdict

_STYLES = {Outcome.CORRECT: "green", Outcome.INCORRECT: "red", Outcome.UNGRADED: "yellow"}


def print_trial(whole: WholeTrial) -> None:
    """Prints all of a trial; nothing is cut off."""
    trial, material = whole.trial, whole.material
    out.print()
    out.print(f"[bold]{styled(trial.name)}[/]")
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column(overflow="fold")
    for label, value in _facts(trial):
        facts.add_row(label, styled(value))
    out.print(facts)
    if trial.reasoning:
        _heading("Reasoning before the self-edit")
        _text(trial.reasoning)
    if trial.completion:
        _heading("Self-edit")
        _text(trial.completion)
    if material and material.examples:
        _heading(f"Trained on: {material.examples_total} examples")
        for number, example in enumerate(material.examples, start=1):
            _example(number, example)
        if more := material.examples_total - len(material.examples):
            out.print(f"  [dim]… and {more} more[/]")
    if whole.without:
        out.print()
        out.print(f"The questions cannot be shown: {styled(whole.without)}")
    if whole.asked:
        _heading("Questions")
        for asked in whole.asked:
            _question(asked)
    _lost(whole)


def _facts(trial: Trial) -> Iterable[tuple[str, str]]:
    failed = f"{trial.state.value}: {trial.error.message}" if trial.error else trial.state.value
    yield "state", trial.rejection or failed
    yield "context", trial.context_id
    yield "editor", f"{trial.editor}, under {trial.policy}"
    if trial.accuracy is not None:
        yield "accuracy", f"{share(trial.accuracy)}, without the adapter {share(trial.baseline_accuracy)}"
    if trial.retention:
        found = trial.retention
        interval = f"[{found.forgetting_low:+.3f}, {found.forgetting_high:+.3f}]"
        yield "forgetting", f"{found.forgetting:+.3f} {interval} of {found.kept} retention questions"
    if trial.divergence:
        yield "KL to the base", f"{trial.divergence.on_fixed_text:.4f} nats a token on a fixed text"
    if trial.reward is not None:
        yield "reward", f"{trial.reward:+.3f}{', chosen' if trial.selected else ''}"
    if trial.stage_seconds:
        parts = (f"{STAGES.get(stage, stage)} {seconds:.1f} s" for stage, seconds in trial.stage_seconds.items())
        yield "seconds", ", ".join(parts)
    found_loss = trial.manifest.get("found", {})
    if isinstance(loss := found_loss.get("final_loss"), float):
        yield "training", f"{found_loss.get('steps')} steps, final loss {loss:.4f} nats a token"
    if trial.adapter:
        yield "adapter", trial.adapter.digest


def _example(number: int, example: TrainingExample) -> None:
    out.print(f"  [dim]{number}[/]")
    if example.prompt:
        out.print(Padding(Text(visible(example.prompt.user, keep="\n"), style="dim"), (0, 0, 0, 4)))
    out.print(Padding(Text(visible(example.text, keep="\n")), (0, 0, 0, 4)))


def _question(asked: Asked) -> None:
    lines = Table.grid(padding=(0, 2))
    lines.add_column(style="dim", width=8)
    lines.add_column(overflow="fold")
    lines.add_row("question", styled(asked.query.question if asked.query else asked.query_id))
    for gold in asked.query.golds if asked.query else ():
        lines.add_row("gold", styled(gold))
    lines.add_row("before", _verdict(asked.before))
    lines.add_row("after", _verdict(asked.after))
    out.print(Padding(lines, (0, 0, 1, 2)))


def _verdict(verdict: Verdict | None) -> str:
    if verdict is None:
        return "–"
    style = _STYLES[verdict.outcome]
    reason = f" [dim]({styled(verdict.reason)})[/]" if verdict.reason else ""
    return f"[{style}]{verdict.outcome.value}[/] {styled(verdict.answer)}{reason}"


def _lost(whole: WholeTrial) -> None:
    retention = whole.trial.retention
    own = [asked.query.question if asked.query else asked.query_id for asked in whole.asked if asked.lost]
    suite = whole.material.lost if whole.material else ()
    if not own and not (retention and retention.lost_query_ids):
        return
    _heading("Lost: right before, wrong after")
    for question in own:
        out.print(f"  {styled(question)}")
    for query in suite:
        out.print(f"  {styled(query.question)} [dim]gold: {styled(query.gold)}; of the retention suite[/]")
    if retention and (unknown := len(retention.lost_query_ids) - len(suite)):
        out.print(f"  [dim]{unknown} more questions of the retention suite[/]")


def _heading(text: str) -> None:
    out.print()
    out.print(f"[bold]{styled(text)}[/]")


def _text(text: str) -> None:
    out.print(Padding(Text(visible(text, keep="\n")), (0, 0, 0, 2)))
