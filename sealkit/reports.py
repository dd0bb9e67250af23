"""Reports as frozen values: what the controller derives from the resources and its database when a caller asks.

Each has its message in `seal.controller.v1`, converted as the resources are (`sealkit.rpc.mapping`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sealkit.notebook import frame, table
from sealkit.resources import DocumentState, PolicyVersion, Trial
from sealkit.types import AdapterRef, Query, TrainingExample, Usage, Value

if TYPE_CHECKING:
    import pandas


class Estimate(Value):
    """A mean over n things with its 95 % interval."""

    mean: float
    low: float
    high: float
    n: int


class ReportRow(Value):
    key: str
    label: str
    split: str
    accuracy: Estimate


class CurvePoint(Value):
    """One policy on the learning curve. `accuracy`: of its self-edits on the held-out contexts, None if it was not
    scored; `gain`: minus that of the best policy before it, paired by context; `adopted`: whether the run continued
    from it, and if not, `reason`: why."""

    policy: str
    accuracy: Estimate | None = None
    gain: Estimate | None = None
    adopted: bool = True
    reason: str = ""


class Power(Value):
    """The smallest difference of two policies that a comparison on `contexts` held-out contexts, with `samples`
    self-edits each, finds with 80 % probability (two-sided, 5 %). `deviation`: standard deviation over contexts of the
    paired differences; `measured`: whether it comes from recorded trials, and is not assumed."""

    contexts: int
    samples: int
    deviation: float
    detectable: float
    measured: bool


class Cost(Value):
    """Cost of a run, by stage, and per result. None without a result to divide by."""

    stages: dict[str, Usage] = Field(default_factory=dict)
    accepted: int = 0
    device_seconds_per_accepted: float | None = None
    tokens_per_accepted: float | None = None
    device_seconds_per_point: float | None = None
    """Per point (0.01) of gain over no adapter, on held-out contexts if there are any."""
    money: float | None = None
    """By the config's prices, in `currency`."""
    currency: str = ""


class Continual(Value):
    """R[i,j]: accuracy on context j after commit i, row 0 the base model; None: not measured. BWT and forgetting as in
    docs/glossary.md."""

    contexts: tuple[str, ...] = ()
    matrix: tuple[tuple[float | None, ...], ...] = ()
    just_learned: Estimate | None = None
    at_end: Estimate | None = None
    bwt: Estimate | None = None
    forgetting: Estimate | None = None


class LostQuestion(Value):
    """A question that was answered right before a document was learned, and wrong after. `document`: the one that it is
    about; empty: it is of the retention suite, whose answers are not stored."""

    query_id: str
    document: str = ""
    question: str
    gold: str
    before: str = ""
    after: str = ""


class DocumentReport(Value):
    """What became of a document. Accuracies, in [0, 1], are of the version before and after it, on its own exam.

    Attributes:
        digest: SHA-256 of its bytes.
        replaces: Digest of its older version, which the alias knew; empty: none.
        passages: Passages that were read.
        learned: Passages of which a self-edit was kept.
        questions: Questions of its exam.
        generated: Whether the exam was generated, not given.
        seconds: From the start of its round to its end.
        policy: The version that the alias had after it; empty until then.
    """

    name: str
    digest: str
    title: str = ""
    format: str = ""
    state: DocumentState
    reason: str = ""
    notices: tuple[str, ...] = ()
    replaces: str = ""
    passages: int = 0
    learned: int = 0
    questions: int = 0
    generated: bool = True
    accuracy_before: float | None = None
    accuracy_after: float | None = None
    lost: tuple[LostQuestion, ...] = ()
    seconds: float | None = None
    policy: str = ""


class RunReport(Value):
    """The results of a run. `rl_gain`: self-edits of the last adopted policy minus the first's on held-out contexts,
    paired; `arm_gains`: minus another editor's, by its name. `curve`: all policies, oldest first; empty if none was
    scored. `power`: of `rl_gain`, or of a comparison like it."""

    rows: tuple[ReportRow, ...]
    trial_counts: dict[str, int]
    kept: int
    trial_forgetting: Estimate | None
    policies: tuple[PolicyVersion, ...]
    stage_seconds: dict[str, float]
    rl_gain: Estimate | None
    verdict: str
    usage: Usage
    wall_seconds: float
    cost: Cost = Cost()
    round_costs: dict[int, Cost] = Field(default_factory=dict)
    arm_gains: dict[str, Estimate] = Field(default_factory=dict)
    arm_costs: dict[str, Cost] = Field(default_factory=dict)
    continual: Continual | None = None
    documents: tuple[DocumentReport, ...] = ()
    generated_exam: bool = False
    """Whether questions that these accuracies are measured on were generated, not given."""
    curve: tuple[CurvePoint, ...] = ()
    power: Power | None = None

    def to_pandas(self) -> pandas.DataFrame:
        """The accuracies as a frame: a row for each kind of trial and split, with the mean over `n` contexts and its
        95 % interval. `sealkit.frames` makes frames of the curve, of R and of trials too. Raises FailedPrecondition if
        pandas (the extra `notebook`) is not installed."""
        rows = ((r.label, r.split, r.accuracy.mean, r.accuracy.low, r.accuracy.high, r.accuracy.n) for r in self.rows)
        return frame(rows, ("what", "split", "accuracy", "low", "high", "n"))

    def _repr_html_(self) -> str:
        """The report in a notebook."""
        rows = (
            (row.split, row.label, f"{a.mean:.3f}", f"{a.low:.3f} – {a.high:.3f}", str(a.n))
            for row, a in ((row, row.accuracy) for row in self.rows)
        )
        return table(self.verdict, rows, ("contexts", "trials", "accuracy", "95 % interval", "n"))


class Pace(Value):
    """Mean wall seconds of the parts of a run: until its first trial has ended; from the end of a trial to the next
    one's; the rest of a round, without its trials."""

    start_seconds: float
    trial_seconds: float
    round_seconds: float


class RunEstimate(Value):
    """Estimated cost of a run, from the rates of `based_on` recorded trials; seconds are 0 without any."""

    trials: int
    usage: Usage
    wall_seconds: float
    based_on: int
    basis: str
    power: Power | None = None
    """Of comparing two policies on the held-out contexts; None with fewer than two of them, or if none is scored."""


class TrialMaterial(Value):
    """What a trial was asked and trained on, made again from the run's dataset and the trial's texts."""

    queries: tuple[Query, ...] = ()
    """In order, without their views."""
    lost: tuple[Query, ...] = ()
    """The retention queries that were lost."""
    examples: tuple[TrainingExample, ...] = ()
    """The first training examples, as many as 1 MiB of text holds, without rehearsal and anchors; none: nothing was
    trained."""
    examples_total: int = 0


class Difference(Value):
    """One difference of a rerun."""

    field: str
    recorded: str
    rerun: str


class Rerun(Value):
    """A trial made again from its manifest, and the recorded one."""

    trial: Trial
    original: str
    identical: bool = False
    differences: tuple[Difference, ...] = ()


class LineageQuery(Value):
    """A question of a document's exam. `generated`: whether it and its gold answer were generated, not given."""

    query_id: str
    question: str
    gold: str
    generated: bool = False


class LineageTrial(Value):
    """A trial that a version was trained on. `self_edit` and `teacher_answers`: digests (SHA-256) of the trial's texts;
    `policy_adapter`: that of the policy that wrote the self-edit, None for the base model or an outside one."""

    name: str
    editor: str
    policy: str
    policy_adapter: AdapterRef | None = None
    self_edit: str
    teacher_answers: str
    adapter: AdapterRef | None = None


class LineageDocument(Value):
    """A document that a version was trained on, and the run that learned it. Accuracies on its exam are of the versions
    before and after it."""

    name: str
    digest: str
    run: str
    trials: tuple[LineageTrial, ...] = ()
    queries: tuple[LineageQuery, ...] = ()
    accuracy_before: float | None = None
    accuracy_after: float | None = None


class Lineage(Value):
    """Where a version comes from. `version` has its verdicts; `base_model` is the digest of the base model."""

    alias: str = ""
    version: PolicyVersion
    base_model: str
    documents: tuple[LineageDocument, ...] = ()
