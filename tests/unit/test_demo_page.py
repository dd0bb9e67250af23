"""The closing page of `make demo`: what was learned and what was not, within 80 columns."""

import pytest

from scripts.demo_page import WIDTH, Asked, answers, page
from sealkit.client import SealClient
from sealkit.reports import CurvePoint, Estimate, RunReport, TrialMaterial
from sealkit.resources import PolicyVersion
from sealkit.types import Outcome, Prompt, Query, Retention, Usage, Verdict
from tests.unit.cli.test_cli_report import EMPTY, NOW

TRIAL = "runs/r/rounds/0/trials/lake-0"


def version(number: int, answer: str, outcome: Outcome, trials: tuple[str, ...] = ()) -> PolicyVersion:
    verdicts = (Verdict(query_id="lake/0", answer=answer, outcome=outcome),)
    retention = Retention(
        kept=48, accuracy_before=1.0, accuracy_after=0.875, forgetting=0.125, forgetting_low=0.02, forgetting_high=0.25,
        lost_query_ids=("a", "b", "c", "d", "e", "f"),
    )  # fmt: skip
    return PolicyVersion(
        name=f"policies/r-{number}", run="runs/r", version=number, trials=trials, verdicts=verdicts,
        retention=retention, create_time=NOW,
    )  # fmt: skip


POLICIES = (
    version(0, "It is\nblue. " + "b" * 100, Outcome.INCORRECT),
    version(1, "\x1b[31mCedar", Outcome.CORRECT, (TRIAL,)),
)
LEARNED = EMPTY.changed(policies=POLICIES, trial_counts={"succeeded": 5}, wall_seconds=125.0)


class Controller(SealClient):
    """Has the two policies and the trial."""

    def __init__(self) -> None:
        pass

    def get_policy(self, name: str) -> PolicyVersion:
        return next(policy for policy in POLICIES if policy.name == name)

    def get_trial_material(self, name: str) -> TrialMaterial:
        assert name == TRIAL
        return TrialMaterial(
            queries=(Query(query_id="lake/0", question="What wood?", gold="cedar", prompt=Prompt(user="What wood?")),)
        )


def rounds(low: float) -> RunReport:
    gain = Estimate(mean=0.15, low=low, high=0.25, n=40)
    accuracies = [Estimate(mean=mean, low=mean - 0.1, high=mean + 0.1, n=40) for mean in (0.1, 0.25)]
    return RunReport(
        rows=(), trial_counts={}, kept=21, trial_forgetting=None, policies=(), stage_seconds={}, rl_gain=gain,
        verdict="What the controller says.", usage=Usage(), wall_seconds=61.0,
        curve=tuple(CurvePoint(policy=f"policies/q-{n}", accuracy=one) for n, one in enumerate(accuracies)),
    )  # fmt: skip


def shown(learned: RunReport, asked: list[Asked], second: RunReport) -> str:
    lines = list(page(learned, asked, second))
    assert max(map(len, lines)) <= WIDTH
    return "\n".join(lines)


def test_answers_before_and_after_are_those_of_the_first_and_the_last_version() -> None:
    (one,) = answers(Controller(), LEARNED)
    assert (one.right_before, one.right_after) == (False, True)
    text = shown(LEARNED, [one], rounds(0.05))
    for wanted in (
        "What wood? (cedar)",
        "✗ before  It is blue. bbb",
        "✓ after   \\x1b[31mCedar",
        "2:05",
        "θ_0  0.10 [0.00, 0.20]  ████\n",
        "θ_1  0.25 [0.15, 0.35]  ██████████\n",
        "What the controller says.",
    ):
        assert wanted in text
    running = " ".join(text.split())
    assert "0 of 1 questions were answered right before and 1 after" in running
    assert "6 of 48 general questions that the model had answered right, 0.12 [0.02, 0.25]" in running


@pytest.mark.parametrize(
    ("right_after", "low", "worked"), [(True, 0.05, True), (False, 0.05, False), (True, -0.05, False)]
)
def test_the_last_lines_say_whether_it_worked(right_after: bool, low: float, worked: bool) -> None:
    asked = [Asked(question="q", gold="g", before="b", after="a", right_before=False, right_after=right_after)]
    end = shown(LEARNED, asked, rounds(low)).splitlines()[-8:]
    assert any(line.startswith("It worked: ") for line in end) is worked


def test_without_a_learned_text_the_page_says_why() -> None:
    text = shown(EMPTY, [], rounds(0.05))
    assert "No text was committed after 0 trials: Nothing can be said yet." in text
    assert "It worked" not in text
