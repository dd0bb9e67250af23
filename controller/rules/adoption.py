"""What became of a document, and why it is not adopted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from controller.db.documents import DocumentOutcome
from controller.rules.exam import Exam
from controller.rules.gate import adapter_limit, within_gate
from controller.rules.selection import Group
from sealkit.config import RunConfig
from sealkit.resources import DocumentState, PolicyVersion, Trial, TrialState
from sealkit.types import Verdict, accuracy


def why_none_kept(groups: Sequence[Group], config: RunConfig) -> str:
    """Why no self-edit on a document was kept, in one sentence."""
    edits = [trial for group in groups for trial in group.edits]
    scored = [trial for trial in edits if trial.state is TrialState.SUCCEEDED]
    if not scored:
        counts = Counter(_ended(trial) for trial in edits)
        return "no self-edit could be tried: " + ", ".join(f"{count} {how}" for how, count in counts.most_common())
    safe = [trial for trial in scored if within_gate(trial, config)]
    if not safe:
        least = min(trial.forgetting or 0.0 for trial in scored)
        setting, limit = adapter_limit(config)
        return (
            f"each of {len(scored)} self-edits forgot too much: {least:.2f} of the retention questions at least; "
            f"{setting} is {limit:g}"
        )
    best = max(safe, key=lambda trial: trial.accuracy or 0.0)
    return (
        f"none of {len(safe)} self-edits helped: the best has accuracy {best.accuracy or 0.0:.2f} on its exam, and "
        f"{best.baseline_accuracy or 0.0:.2f} without"
    )


def _ended(trial: Trial) -> str:
    if trial.state is TrialState.REJECTED:
        return f"rejected ({trial.rejection.partition(':')[0]})"
    return f"{trial.state.value} ({trial.error.reason})" if trial.error else trial.state.value


def why_no_exam(exams: Sequence[Exam]) -> str:
    """Why there is no exam on a document, in one sentence."""
    tried = [question for exam in exams for question in exam.questions]
    faults = Counter(question.fault for question in tried if question.fault)
    listed = "".join(f"; {count}: {fault}" for fault, count in faults.most_common())
    usable = len(tried) - faults.total()
    return f"there is no exam to measure it by: of {len(tried)} questions, {usable} can be used{listed}"


def outcome_of(
    before: PolicyVersion, after: PolicyVersion | None, queries: Collection[str], refusal: str = ""
) -> DocumentOutcome:
    """What became of a document: learned by the version `after`; or, with a `refusal`, not adopted. `queries`: ids of
    those of its exam. `after` None: no version was trained on it."""
    return DocumentOutcome(
        state=DocumentState.NOT_ADOPTED if refusal else DocumentState.LEARNED,
        reason=refusal,
        questions=len(queries),
        accuracy_before=accuracy(_about(before, queries)),
        accuracy_after=accuracy(_about(after, queries)) if after else None,
    )


def _about(version: PolicyVersion, queries: Collection[str]) -> tuple[Verdict, ...]:
    return tuple(one for one in version.verdicts if one.query_id in queries)
