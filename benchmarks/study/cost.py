"""The table "Cost": what a trial costs, stage by stage, with distilled questions and as SEAL trains, on the same
passages; and what is asked only once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import fmean

from benchmarks.study.experiment import Experiment
from benchmarks.study.knowledge import ROOT, on_passages
from benchmarks.study.page import all_seeds, head, measured, row
from benchmarks.study.results import Results
from sealkit.resources import Editor, TrialPhase, TrialState
from sealkit.stats import mean_estimate

CONFIG = ROOT / "configs/knowledge_distilled.toml"
SETTINGS = (
    "rounds=1",
    "contexts_per_round=3",
    "editor.k=2",
    "held_out.samples=0",
    "evaluation.retention_limit=8",
    "evaluation.divergence=false",
    'selection.learn_from=["base"]',
    "gate.max_forgetting=1.0",
)
"""Six self-edits and three raw passages; no policy is trained on them."""
VARIANTS = {
    "distilled": (),
    "sft": (
        'domain.options={style="implications"}',
        'inner_loop.objective="sft"',
        'inner_loop.anchors.source="none"',
        "inner_loop.anchors.contrast=false",
        "inner_loop.optimisation.learning_rate=1e-3",
        "inner_loop.optimisation.epochs=10",
        "inner_loop.optimisation.batch_size=1",
        "editor.sampling.temperature=1.0",
    ),
}
"""By name: `configs/knowledge_distilled.toml`; implications trained on as in `configs/knowledge.toml`, SEAL's way."""
LABELS = {"distilled": "questions, distilled", "sft": "implications, SFT (SEAL's way)"}
STAGES = ("generate", "teach", "train", "evaluate")
QUESTIONS = 5
"""On each of the demo's passages."""
_READ, _WRITTEN, _TRAINED, _DEVICE, _SECONDS = range(5)
"""Of a stage in the record's `usage`."""


def experiment(seed: int, variant: str, *, quick: bool) -> Experiment:
    """One run."""
    settings = (*SETTINGS, *VARIANTS[variant], *(("contexts_per_round=1",) if quick else ()))
    return on_passages("cost", seed, variant, CONFIG, settings, quick=quick)


def sections(runs: Sequence[Results]) -> dict[str, str]:
    """By name."""
    return {
        "cost": f"{note(runs)}\n\n{stage_table(runs)}",
        "cost-saved": saved_table(runs),
    }


def note(runs: Sequence[Results]) -> str:
    """n, seeds, machine, date and config."""
    config = runs[0].about["config"]
    return (
        f"smollm2-135m-instruct; seeds {all_seeds(runs)}; {config['contexts_per_round']} passages, "
        f"{config['editor']['k']} self-edits on each, and the raw passage trained to their mean length; retention of "
        f"{config['evaluation']['retention_limit']} questions; the whole config is in each record. Means over trials "
        f"with 95 % intervals; device seconds are divided among jobs that train together, seconds include waiting for "
        f"a service. {measured(runs, LABELS)}"
    )


def stage_table(runs: Sequence[Results]) -> str:
    """Tokens, device seconds and seconds of a trial, by stage."""
    heads = ["trial", "of", "n", "stage", "tokens read", "written", "trained on", "device seconds", "seconds"]
    return "\n".join([*head(heads), *(line for run in runs for line in _stage_rows(run))])


def saved_table(runs: Sequence[Results]) -> str:
    """Answers that were asked once instead of in each trial: a context's baseline, and the base model's answers to the
    retention suite. Of the suite only the right answers are counted, so it is the least that was saved."""
    heads = ["trial", "trials", "answers asked", "not asked again, at least", "share of what would have been asked"]
    lines = head(heads)
    for run in runs:
        own = [v for v, t in zip(run.rows, run.trials, strict=True) if t.state is TrialState.SUCCEEDED]
        if not own:
            continue
        retained = [values["retained"] or 0 for values in own]
        contexts = len({values["context"] for values in own})
        answers, once = QUESTIONS * len(own) + sum(retained), QUESTIONS * contexts + max(retained)
        saved = answers - once
        share = f"{saved / (2 * answers):.0%}"
        lines.append(row(LABELS[run.variant], str(len(own)), str(answers + once), str(saved), share))
    return "\n".join(lines)


def _stage_rows(run: Results) -> Iterator[str]:
    for editor, label in ((Editor.POLICY, "self-edit"), (Editor.PASSAGE_ONLY, "the raw passage")):
        own = [
            values["usage"]
            for values, trial in zip(run.rows, run.trials, strict=True)
            if trial.editor == editor and trial.phase is TrialPhase.E_STEP and trial.state is TrialState.SUCCEEDED
        ]
        if not own:
            continue
        totals: dict[int, list[float]] = defaultdict(list)
        for usage in own:
            for place in range(_SECONDS + 1):
                totals[place].append(sum(stage[place] for stage in usage.values()))
        for stage in STAGES:
            used = [usage[stage] for usage in own if stage in usage]
            if used:
                columns = [[values[place] for values in used] for place in range(_SECONDS + 1)]
                yield _stage_row(run, label, len(own), stage, columns)
        yield _stage_row(run, label, len(own), "**all**", [totals[place] for place in range(_SECONDS + 1)])


def _stage_row(run: Results, label: str, n: int, stage: str, columns: Sequence[Sequence[float]]) -> str:
    tokens = (f"{fmean(columns[place]):,.0f}" for place in (_READ, _WRITTEN, _TRAINED))
    seconds = (_seconds(columns[place]) for place in (_DEVICE, _SECONDS))
    return row(LABELS[run.variant], label, str(n), stage, *tokens, *seconds)


def _seconds(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.1f}"
    found = mean_estimate(values, high=max(values) * len(values))
    assert found is not None
    return f"{found.mean:.1f} [{found.low:.1f}, {found.high:.1f}]"
