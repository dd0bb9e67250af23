"""The study's tables beside ARC in small: what their runs are, and what their sections say of a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from benchmarks.study import collapse, cost, knowledge_page
from benchmarks.study.experiment import COLUMNS, SPENT
from benchmarks.study.knowledge import Found, learned
from benchmarks.study.results import Results, results_of
from benchmarks.study.tables import TABLES
from benchmarks.surrogate import by_round, contained, ranked, recorded
from controller.accept import accept
from sealkit.resources import Trial

TRIAL = {"round": 0, "phase": "held_out", "state": "succeeded", "editor": "policy", "policy": 0, "index": 0,
         "accuracy": 0.0, "baseline": 0.0, "selected": False, "edit": "a", "forgetting": None, "retained": None,
         "usage": {}, "found": None}  # fmt: skip
COLUMNS_OF_ALL = [*COLUMNS, *SPENT, "found"]


def run(variant: str, trials: Sequence[Mapping[str, Any]], gates: Sequence[str] = ("passed",)) -> Results:
    """The results of a record with these trials; what they leave out is as in `TRIAL`."""
    config = {
        "held_out": {"samples": 1}, "rounds": 1, "contexts_per_round": 2, "m_step": {"start_from": "policy"},
        "editor": {"k": 2, "arms": ["policy"], "sampling": {"temperature": 0.5}}, "selection": {"rule": "positive"},
        "evaluation": {"retention_limit": 8},
    }  # fmt: skip
    power = {"contexts": 2, "samples": 1, "deviation": 0.3, "detectable": 0.14, "measured": True}
    record = {
        "table": "t", "seed": 0, "variant": variant, "state": "succeeded", "machine": "m", "date": "d",
        "config": config, "report": {"wall_seconds": 60.0, "power": power}, "columns": COLUMNS_OF_ALL,
        "policies": [{"gate": gate, "reason": "", "examples": 3} for gate in gates],
        "trials": [[{**TRIAL, **trial}[name] for name in COLUMNS_OF_ALL] for trial in trials],
    }  # fmt: skip
    return results_of(record)


def lines(table: str) -> list[list[str]]:
    """The cells of a table's rows."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")][2:]


@pytest.mark.parametrize(
    ("table", "variant", "trials"),
    [
        ("arc", "selective", 1062),
        ("knowledge", "taught", 172),
        ("knowledge", "quoted_taught", 172),
        ("knowledge", "quoted", 200),
        ("collapse", "unfiltered", 1674),
        ("cost", "distilled", 9),
        ("cost", "sft", 9),
    ],
)
def test_the_controller_accepts_every_run(table: str, variant: str, trials: int) -> None:
    for quick in (False, True):
        made = TABLES[table].experiment(0, variant, quick=quick)
        config = made.config.model_dump(mode="json")
        new, contexts = accept(
            request_id="r", display_name=made.name, config=config, records=made.records, retention=(), plugins=()
        )
        assert "/" not in config["dataset"]["path"].removeprefix("demo/").removeprefix("arc_smoke/"), "a machine's path"
        assert quick == (new.planned.total != trials), new.planned
        assert {context.split for context in contexts} == {"train", "heldout"}


def test_variants_of_collapse_differ_in_the_filter_alone() -> None:
    made = [collapse.experiment(0, name, quick=False).config.model_dump(mode="json") for name in collapse.VARIANTS]
    for config in made:
        del config["name"], config["selection"], config["gate"]
    assert made[0] == made[1] == made[2]


def test_collapse_shows_how_few_self_edits_a_policy_still_writes() -> None:
    texts = [("abcd", 0), ("aaab", 1)]
    edits = [
        {"context": f"c{place}", "policy": number, "edit": text, "baseline": 0.5 - number / 4,
         "state": "rejected" if number and text == "b" else "succeeded"}
        for written, number in texts
        for place, text in enumerate(written)
    ]  # fmt: skip
    found = run("unfiltered", edits, ["passed", "passed"])
    first, second = lines(collapse.edit_table([found]))
    assert first[2:6] == ["3", "4", "2.00", "0.25"]
    assert second[3:6] == ["2", "0.81", "0.75"]
    assert second[6].startswith("0.250"), "the share that was rejected"
    assert (first[7][:5], second[7][:5]) == ("0.500", "0.250"), "what the policy can do itself"
    assert lines(collapse.edit_table([found, found]))[0][4] == "2.00 (2.0, 2.0)", "by seed"


def test_collapse_compares_each_filter_with_none_on_the_same_tasks() -> None:
    fell = [{"context": f"c{i}", "policy": p, "accuracy": s} for p, scores in ((0, (0.5, 0.5)), (1, (0.1, 0.3)))
            for i, s in enumerate(scores)]  # fmt: skip
    kept = [{**trial, "accuracy": 0.6} for trial in fell]
    runs = [run("unfiltered", fell, ["passed", "passed"]), run("selective", kept, ["passed", "passed"])]
    (none, ours) = lines(collapse.end_table(runs))
    assert none[2][:5] == "0.200"
    assert (none[3][:6], none[4][:6], none[5]) == ("-0.300", "-0.300", "–")
    assert (ours[5], ours[6][:6]) == ("–", "+0.400")


def test_each_setting_is_compared_by_passage_with_its_own_first_policy_and_with_the_passage_alone() -> None:
    alone = learned("passage_sft")
    context = next(iter(alone))
    arms = (("policy", 0, 0.4, 100), ("policy", 1, 0.6, 300), ("exam", 0, 0.8, 0))
    trials = [
        {"context": context, "policy": policy, "editor": editor, "accuracy": score, "forgetting": 0.25,
         "usage": {"train": [0, 0, tokens, 1, 1]}, "found": score if tokens else None}
        for editor, policy, score, tokens in arms
    ]  # fmt: skip
    other = [{"context": context, "policy": policy, "accuracy": 0.1} for policy in (0, 1)]
    runs = [run("quoted_taught", trials, ["passed"] * 2), run("quoted", other, ["passed"] * 2)]
    found = {cells[0]: cells[1:] for cells in lines(knowledge_page.arm_table(knowledge_page.arms(runs)))}
    last = found["θ_1, quoted answers, exam tried too"]
    assert last[1][:5] == "0.600"
    assert float(last[2][:6]) == pytest.approx(0.6 - alone[context], abs=1e-3)
    assert last[3][:6] == "+0.200"
    assert [cell[:5] for cell in last[4:]] == ["0.600", "0.250", "300"]
    assert found["θ_0, quoted answers, own self-edits"][3] == "–"
    assert found["the exam's own questions, quoted answers"][4][:5] == "0.000", "it was rejected"
    assert found["the passage, SFT, 4,500 tokens"][2] == "–", "it is not compared with itself"
    assert "2 passages × 1 show a difference of two policies of 0.14 with" in knowledge_page.note(runs)


def test_an_e_step_shows_what_there_was_to_choose_from_and_what_came_of_it() -> None:
    edits = [{"context": "c0", "phase": "e_step", "accuracy": s, "selected": s > 0.5} for s in (0.2, 0.6)]
    edits += [{"context": "c0", "phase": "e_step", "state": "rejected", "accuracy": None, "baseline": 0.1}]
    exam = [{"context": "c0", "phase": "e_step", "editor": "exam", "accuracy": 0.8, "selected": True}]
    after = [{"context": "h", "policy": number, "accuracy": score} for number, score in enumerate((0.2, 0.5))]
    runs = [run("quoted", [*edits, *after], ["passed"] * 2), run("taught", [*edits, *exam])]
    taught, own = lines(knowledge_page.train_table(runs))
    assert taught[7] == "2 on 1 passages, 1 of the exam"
    assert [cell[:5] for cell in own[3:5]] == ["0.300", "0.600"]
    assert own[5:8] == ["+0.300 [-1.00, +1.00]", "1 of 3", "1 on 1 passages"]
    assert (own[8][:5], own[9][:5], own[10][:6]) == ("0.200", "0.500", "+0.300")


def test_a_surrogate_is_ranked_within_passages_only() -> None:
    groups = [[(0.0, 0.1), (0.5, 0.2), (1.0, 0.3)], [(0.5, 0.9), (0.5, 0.8), (0.5, 0.7)]]
    cells = ranked("s", groups, ["a", "b"]).split("|")
    assert cells[2].strip() == "2"
    assert cells[3].strip().startswith("+0.50"), "1 on the first, 0 on the second, where it tells nothing apart"
    assert ranked("s", [[(0.0, 0.5), (1.0, 0.5), (1.0, 0.5)]], ["a"]) == "| s | 0 | – | – |"


def test_seals_records_are_paired_with_the_questions_of_their_passage() -> None:
    completions = [
        {"text": text, "adapter_mean": mean, "run_verdicts": [[mean > 0], [mean > 0]]}
        for text, mean in (("Built by Tessa Vole.", 1.0), ("It is old.", 0.0))
    ]
    selections = [{"title": "T", "context": "Tessa Vole built it.", "completions": completions}]
    verdicts = [
        {"title": "T", "question": "Who built it?", "gold": "Tessa Vole"},
        {"title": "T", "question": "Where is it?", "gold": "Marrow"},
    ]
    found = recorded(selections, verdicts)
    assert found["gold answers contained"] == [([(1.0, 1.0), (0.0, 0.0)], "Tessa Vole built it.")]
    assert len(found["the reward of one training"]) == 2
    (first,) = lines(by_round([{**record, "iter": 0} for record in selections], verdicts))
    assert [cell[:5] for cell in first] == ["1", "1", "0.500", "1.000", "0.500", "1.000"]


@pytest.mark.parametrize("variant", ["taught", "quoted"])
def test_what_an_adapter_is_trained_on_is_looked_through_for_the_exams_answers(variant: str) -> None:
    made = TABLES["knowledge"].experiment(0, variant, quick=True)
    found = made.more["found"]
    assert isinstance(found, Found)
    context = next(iter(found.contexts.values()))
    exam = [(query.question, query.gold) for query in found.domain.queries(context)]
    trial = run("rounds", [{"context": context.context_id, "edit": ""}]).trials[0]
    assert found(trial) is None, "a rejected one"
    asked: Trial = trial.changed(completion=found.domain.ready_made(context)["exam"])
    answers = (exam[0][1], *("It is not so." for _ in exam[1:]))
    told: Trial = asked.changed(teacher_answers=answers)
    expected = contained(exam, "\n".join(answers)) if variant == "taught" else 1.0
    assert found(told) == pytest.approx(expected, abs=1e-3)


def test_cost_adds_up_the_stages_and_counts_what_was_not_asked_again() -> None:
    usage = {"generate": [300, 100, 0, 2.0, 3.0], "train": [0, 0, 4000, 20.0, 30.0]}
    trials = [{"context": "c0", "phase": "e_step", "usage": usage, "retained": 8} for _ in range(3)]
    found = run("distilled", trials)
    rows = lines(cost.stage_table([found]))
    assert [cells[3] for cells in rows] == ["generate", "train", "**all**"]
    assert rows[-1][4:] == ["300", "100", "4,000", "22.0 [22.0, 22.0]", "33.0 [33.0, 33.0]"]
    # Three trials ask 13 each; baseline and suite are asked once instead of three times.
    assert lines(cost.saved_table([found])) == [["questions, distilled", "3", "52", "26", "33%"]]
