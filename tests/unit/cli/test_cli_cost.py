"""What things cost and would cost, as a person reads it."""

from __future__ import annotations

from seal_cli.cost import COST_COLUMNS, cost_facts, cost_rows, estimate_facts
from sealkit.reports import Cost, RunEstimate
from sealkit.types import Usage

TRAIN, M_STEP = Usage(train_tokens=1500, device_seconds=90.0), Usage(train_tokens=500, device_seconds=30.0)
COST = Cost(
    stages={"train": TRAIN, "m_step": M_STEP},
    accepted=2,
    device_seconds_per_accepted=60.0,
    tokens_per_accepted=1000.0,
    device_seconds_per_point=12.0,
    money=1.5,
    currency="EUR",
)


def test_a_report_says_what_was_taken_and_for_what() -> None:
    told = dict(cost_facts(COST))
    assert told["device time"] == "2:00 (training 90.0 s, M-steps 30.0 s)"
    assert told["tokens"] == "2,000 (training 1,500, M-steps 500)"
    assert told["that is"] == (
        "60.0 s and 1,000 tokens for each of 2 accepted self-edits; 12.0 s for each point (0.01) of gain"
    )
    assert told["money"] == "1.50 EUR"


def test_what_nobody_measured_is_not_told() -> None:
    assert list(cost_facts(Cost())) == []
    assert dict(cost_facts(Cost(stages={"train": Usage(train_tokens=5)}))) == {"tokens": "5 (training 5)"}


def test_rounds_come_in_order_and_the_run_last() -> None:
    rows = list(cost_rows({1: COST, 0: Cost(stages={"train": TRAIN}, accepted=1)}, COST))
    assert [row[:2] for row in rows] == [
        ("round 1", "training"), ("round 1", "in all"),
        ("round 2", "training"), ("round 2", "M-steps"), ("round 2", "in all"),
        ("run", "training"), ("run", "M-steps"), ("run", "in all"),
    ]  # fmt: skip
    assert rows[-1][2:] == ("0", "0", "2000", "120.0", "2", "1.50 EUR")
    assert all(len(row) == len(COST_COLUMNS) for row in rows)


def test_an_estimate_without_rates_tells_the_trials_and_why_no_more() -> None:
    nothing = RunEstimate(trials=1200, usage=Usage(), wall_seconds=0.0, based_on=0, basis="No trial yet.")
    assert list(estimate_facts(nothing)) == [("trials", "1,200"), ("by", "No trial yet.")]
    known = RunEstimate(trials=12, usage=TRAIN, wall_seconds=3725.0, based_on=40, basis="The newest 40 trials.")
    told = dict(estimate_facts(known))
    assert (told["wall time"], told["device time"]) == ("1:02:05", "1:30")
    assert told["tokens"] == "1,500 (0 read, 0 written, 1,500 trained on)"
