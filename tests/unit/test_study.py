"""The study's page: what it says of a record, and that the stored page is that of the stored records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.page import with_section
from benchmarks.study.__main__ import PAGE, RECORDS
from benchmarks.study.arc_page import curve_table, gain_table, gate_table
from benchmarks.study.experiment import COLUMNS
from benchmarks.study.page import page
from benchmarks.study.results import by_choice, pooled, read, results_of
from benchmarks.study.tables import TABLES


def record(
    policies: list[list[float | None]], gates: list[str], seed: int = 0, variant: str = "keep_best"
) -> dict[str, Any]:
    """A run with one held-out self-edit of each policy on each context; None: rejected."""
    rows = [
        [0, "held_out", "rejected" if score is None else "succeeded", f"c{context}", "policy", number, 0, score, 0.1,
         False, f"edit {number}"]
        for number, scores in enumerate(policies)
        for context, score in enumerate(scores)
    ]  # fmt: skip
    rows += [
        [0, "held_out", "succeeded", f"c{context}", arm, 0, 0, score, 0.1, False, arm]
        for arm, score in (("oracle", 0.5), ("passage_only", 0.2))
        for context in range(len(policies[0]))
    ]
    config = {
        "held_out": {"samples": 1}, "rounds": 3, "contexts_per_round": 2, "editor": {"k": 2},
        "m_step": {"start_from": "base"}, "selection": {"rule": "positive"}, "gate": {"held_out": "not_worse"},
    }  # fmt: skip
    return {
        "table": "arc", "seed": seed, "variant": variant, "state": "succeeded", "machine": "m", "date": "d",
        "config": config, "report": {"wall_seconds": 60.0}, "columns": list(COLUMNS), "trials": rows,
        "policies": [{"gate": gate, "reason": "", "examples": 3} for gate in gates],
    }  # fmt: skip


FELL_BACK = record([[0.0, 0.0, None], [0.2, 0.4, 0.6], [0.1, 0.1, 0.1]], ["passed", "passed", "refused"])


def test_a_run_ends_with_the_best_policy_and_not_with_the_last() -> None:
    run = results_of(FELL_BACK)
    assert run.policies[0] == {"c0": 0.0, "c1": 0.0, "c2": 0.1}, "a rejected self-edit counts as the baseline"
    assert run.best == {"c0": 0.2, "c1": 0.4, "c2": 0.6}
    assert run.others["oracle"] == {"c0": 0.5, "c1": 0.5, "c2": 0.5}
    assert run.others["base"] == {"c0": 0.1, "c1": 0.1, "c2": 0.1}
    assert "| keeps the best | 0 | 0.400 [0.00, 0.90] | 12.0 | +0.367 " in gain_table([run])
    assert "(0.100 [0.10, 0.10])" in curve_table([run]), "the refused one is in brackets"
    other = results_of(record([[0.0, 0.0, None], [0.1, 0.1, 0.1]], ["passed", "passed"], variant="always_next"))
    assert "| 0 | 0.400 [0.00, 0.90] | 0.100 [0.10, 0.10] | +0.300 " in gate_table([run, other])
    assert gate_table([run]).count("\n") == 1, "nothing to compare"


def test_a_policy_chosen_by_the_other_tasks_is_not_chosen_by_the_task_itself() -> None:
    run = results_of(record([[1.0, 0.0, 0.0], [0.0, 0.6, 0.0]], ["passed", "passed"]))
    # Without c0 the second is best, without c1 the first; without c2 the first, whose mean is higher.
    assert run.chosen_without() == {"c0": 0.0, "c1": 0.0, "c2": 0.0}
    equal = results_of(record([[0.5, 0.5], [0.5, 0.5]], ["passed", "passed"]))
    assert equal.chosen_without() == {"c0": 0.5, "c1": 0.5}


def test_a_policys_choices_are_worth_what_they_brought_to_all() -> None:
    made = record([[1.0, 0.0], [0.0, None]], ["passed", "passed"])
    for row in made["trials"]:
        row[COLUMNS.index("edit")] = {"rejected": "broken", "succeeded": "good"}[row[COLUMNS.index("state")]]
    run = results_of(made)
    assert (by_choice(run, 0), by_choice(run, 1)) == pytest.approx((1 / 3, (1 / 3 + 0.1) / 2))


def test_runs_are_pooled_by_seed_and_task() -> None:
    runs = [results_of(FELL_BACK), results_of(record([[1.0], [1.0]], ["passed", "passed"], seed=1))]
    found = pooled(runs, lambda run: run.best)
    assert (len(found), found[0, "c0"], found[1, "c0"]) == (4, 0.2, 1.0)
    assert "| keeps the best | all | 4 |" in curve_table(runs)


def test_a_page_without_the_section_is_refused() -> None:
    assert with_section("a\n<!-- t: by x -->\nold\n<!-- end of t -->\nb", "t", r"new \1") == (
        "a\n<!-- t: by x -->\nnew \\1\n<!-- end of t -->\nb"
    )
    with pytest.raises(ValueError, match="no section u"):
        with_section("<!-- t: x -->\n<!-- end of t -->\n", "u", "")


@pytest.mark.parametrize("name", TABLES)
def test_the_stored_page_is_that_of_the_stored_records(name: str) -> None:
    text, runs = PAGE.read_text(encoding="utf-8"), read(Path(RECORDS), name)
    sections = TABLES[name].sections(runs) if runs else {}
    assert page(text, sections) == text, "run python -m benchmarks.study --page"
