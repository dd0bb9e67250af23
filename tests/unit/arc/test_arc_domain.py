"""The ARC plug-in: what it asks, what it refuses, what it trains on, how it is graded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealkit.config import InnerLoopConfig
from sealkit.domains.arc import ArcDomain
from sealkit.domains.arc.toolkit import SCHEMA, read_toolkit
from sealkit.domains.base import Context, Domain, Rejected, load_domain
from sealkit.errors import InvalidConfig, InvalidDataset
from sealkit.judges import Answer, load_judge
from sealkit.types import Optimisation, Outcome, PromptLoss
from tests.unit.arc.arc_tasks import pair, record

TOOLKIT: dict[str, dict[str, Any]] = {
    "data_generation": {
        "use_basic_augmentations": True,
        "use_size_augmentations": False,
        "use_chain_augmentations": False,
        "use_repeat_augmentations": False,
    },
    "training": {"strategy": "train_using_output_tokens", "learning_rate": 1e-4, "num_train_epochs": 2},
}


def domain(**options: Any) -> ArcDomain:
    return ArcDomain(options, InnerLoopConfig(optimisation=Optimisation(batch_size=2)))


def context(**changes: Any) -> Context:
    return domain().contexts([record(**changes)])[0]


def toolkit(**training: Any) -> str:
    return json.dumps(TOOLKIT | {"training": TOOLKIT["training"] | training})


def test_it_is_found_by_name_and_is_a_domain() -> None:
    assert isinstance(load_domain("arc")({}, InnerLoopConfig()), Domain)


# --- the toolkit ------------------------------------------------------------------------------------------------------
def test_a_choice_becomes_the_training_that_it_says() -> None:
    spec = domain().compile(context(), f"Here it is:\n```json\n{toolkit()}\n```", 7)
    assert (spec.optimisation.learning_rate, spec.optimisation.epochs) == (1e-4, 2)
    assert spec.optimisation.batch_size == 2
    assert {example.prompt_loss for example in spec.examples} == {PromptLoss.SHOTS}
    every = domain().compile(context(), toolkit(strategy="train_using_all_tokens"), 7)
    assert {example.prompt_loss for example in every.examples} == {PromptLoss.ALL}
    assert len(spec.examples) > len(domain().context_only(context(), 7).examples)


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        ("", "NO_JSON: it has no {"),
        ("all of it, please", "NO_JSON"),
        ('{"data_generation": {', "NO_JSON"),
        ("{" * 100_000, "NO_JSON"),
        ('{"a": ' + "[" * 100_000, "NO_JSON"),
        ("{}", "INVALID_TOOLKIT: data_generation: Field required; training: Field required"),
        (toolkit(num_train_epochs=0), "INVALID_TOOLKIT: training.num_train_epochs"),
        (toolkit(num_train_epochs=1.5), "INVALID_TOOLKIT: training.num_train_epochs"),
        (toolkit(num_train_epochs="2"), "INVALID_TOOLKIT: training.num_train_epochs"),
        (toolkit(learning_rate=0), "INVALID_TOOLKIT: training.learning_rate"),
        (toolkit(learning_rate=1), "INVALID_TOOLKIT: training.learning_rate"),
        (toolkit(learning_rate=float("nan")), "INVALID_TOOLKIT: training.learning_rate"),
        (toolkit(strategy="both"), "INVALID_TOOLKIT: training.strategy"),
        (toolkit(warmup=3), "INVALID_TOOLKIT: training.warmup"),
        (toolkit(num_train_epochs=100), "TOO_MANY_STEPS: training.num_train_epochs"),
    ],
)
def test_what_is_invalid_is_rejected_with_field_and_reason(completion: str, reason: str) -> None:
    with pytest.raises(Rejected) as rejected:
        domain().compile(context(), completion, 0)
    assert str(rejected.value).startswith(reason)


@given(st.text() | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(json.dumps))
def test_any_text_is_a_toolkit_or_rejected(completion: str) -> None:
    try:
        read_toolkit(completion)
    except Rejected as rejected:
        assert rejected.reason in ("NO_JSON", "INVALID_TOOLKIT")  # noqa: PT017


def test_the_schema_asks_for_every_field_and_no_other() -> None:
    schema = json.loads(SCHEMA)
    parts = [schema, *schema["$defs"].values()]
    assert all(part["additionalProperties"] is False for part in parts if part["type"] == "object")
    assert all(sorted(part["required"]) == sorted(part["properties"]) for part in parts if "properties" in part)


def test_examples_are_bounded_in_number_and_length_and_drawn_by_seed() -> None:
    few = domain(max_examples=5)
    first, other = (few.compile(context(), toolkit(), seed).examples for seed in (1, 2))
    assert len(first) == len(other) == 5
    assert first != other
    assert first == few.compile(context(), toolkit(), 1).examples
    with pytest.raises(Rejected, match="NO_EXAMPLES: all are longer than 10 characters"):
        domain(max_example_characters=10).compile(context(), toolkit(), 0)


def test_the_steps_of_an_epoch_count_batches() -> None:
    exactly = domain(max_examples=4, max_steps=4)
    assert exactly.compile(context(), toolkit(num_train_epochs=2), 0).optimisation.epochs == 2
    with pytest.raises(Rejected, match="3 epochs of 4 examples are 6 steps; the limit is 4"):
        exactly.compile(context(), toolkit(num_train_epochs=3), 0)


def test_with_two_demonstrations_one_is_asked_for_without_any() -> None:
    spec = domain().context_only(context(train=[pair(1, 2), pair(3, 4)]), 0)
    shown = sorted(len(example.prompt.shots) for example in spec.examples if example.prompt)
    assert shown[:2] == [0, 0]
    assert shown[-1] == 1


def test_the_oracle_arm_is_valid_and_can_be_chosen() -> None:
    spec = domain().compile(context(), domain().ready_made(context())["oracle"], 0)
    assert spec.optimisation.epochs == 2
    mine = domain(oracle=TOOLKIT).ready_made(context())["oracle"]
    assert read_toolkit(mine).data_generation.use_repeat_augmentations is False


# --- the questions ----------------------------------------------------------------------------------------------------
def test_each_test_input_is_a_query_under_the_demonstrations_without_its_answer() -> None:
    queries = domain().queries(context(test=[pair(7, 8), pair(9, 9)]))
    assert [query.query_id for query in queries] == ["task/0", "task/1"]
    assert json.loads(queries[0].gold) == [[0, 0], [7, 8]]
    assert [shot.assistant for shot in queries[0].prompt.shots] == [
        "[[0, 0], [1, 2]]",
        "[[0, 0], [3, 4]]",
        "[[0, 0], [5, 6]]",
    ]
    assert "[[7, 8], [0, 0]]" in queries[0].prompt.user
    assert "[[0, 0], [7, 8]]" not in queries[0].prompt.model_dump_json()


def test_views_turn_all_grids_and_reorder_demonstrations() -> None:
    query = domain(views=["transpose"], permutations=1).queries(context())[0]
    assert [view.label for view in query.views] == ["transpose/0", "identity/1", "transpose/1"]
    turned = {view.label: view.prompt for view in query.views}
    assert [shot.assistant for shot in turned["transpose/0"].shots] == [
        "[[0, 1], [0, 2]]",
        "[[0, 3], [0, 4]]",
        "[[0, 5], [0, 6]]",
    ]
    assert "[[7, 0], [8, 0]]" in turned["transpose/0"].user
    assert sorted(turned["identity/1"].shots, key=str) == sorted(query.prompt.shots, key=str)
    assert domain(views=["transpose"], permutations=1).queries(context())[0] == query, "orders derive from names"


@pytest.mark.parametrize("options", [{"views": ["sideways"]}, {"max_steps": 0}, {"oracle": {}}, {"colour": 1}])
def test_bad_options_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig, match=f"domain.options.{next(iter(options))}"):
        domain(**options)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"train": []}, r"records\[0\].train"),
        ({"test": [{"input": [[1]]}]}, r"records\[0\].test\[0\].output: Field required"),
        ({"train": [{"input": [[1, 2], [3]], "output": [[1]]}]}, "row 1 has 1 cells"),
        ({"train": [{"input": [[1, 12]], "output": [[1]]}]}, "12 is not a colour"),
        ({"split": "exam"}, r"records\[0\].split"),
        ({"id": ""}, r"records\[0\].id"),
    ],
)
def test_faulty_tasks_are_named(change: dict[str, Any], fault: str) -> None:
    with pytest.raises(InvalidDataset, match=fault):
        domain().contexts([record() | change])


def test_a_task_that_comes_twice_is_named() -> None:
    with pytest.raises(InvalidDataset, match="'task' is a duplicate"):
        domain().contexts([record(), record()])


# --- the judge --------------------------------------------------------------------------------------------------------
async def judged(*answers: tuple[str, str], gold: str = "[[1, 2], [3, 4]]") -> tuple[Outcome, str, str]:
    got = await load_judge("grid").judge("q", gold, [Answer(text, view) for view, text in answers])
    return got.outcome, got.reason, got.answer


async def test_views_are_turned_back_before_they_vote() -> None:
    outcome, reason, answer = await judged(
        ("", "[[9]]"), ("transpose/0", "13\n24"), ("rotate-90/1", "2 4\n1 3"), ("flip-rows/0", "[[8]]")
    )
    assert (outcome, answer.splitlines()[0]) == (Outcome.CORRECT, "[[1, 2], [3, 4]]")
    assert reason == "votes 2, 1 of 4"


async def test_the_second_most_voted_grid_is_the_second_attempt_and_there_is_no_third() -> None:
    wrong, right = ("", "[[9]]"), ("identity/1", "[[1, 2], [3, 4]]")
    assert (await judged(wrong, wrong, right))[0] is Outcome.CORRECT
    assert (await judged(wrong, wrong, ("", "[[8]]"), ("", "[[8]]"), right))[0] is Outcome.INCORRECT


async def test_on_a_tie_the_plain_view_comes_first() -> None:
    votes = [("", "[[1, 2], [3, 4]]"), ("identity/1", "[[8]]"), ("identity/2", "[[9]]")]
    assert (await judged(*votes))[0] is Outcome.CORRECT
    assert (await judged(*reversed(votes)))[0] is Outcome.INCORRECT


async def test_a_malformed_grid_has_no_vote_and_keeps_its_reason() -> None:
    outcome, reason, _ = await judged(("", "[[1, 2], [3]]"), ("transpose/0", "so"))
    assert (outcome, reason) == (Outcome.INCORRECT, "malformed: row 1 has 1 cells, row 0 has 2")
    outcome, reason, _ = await judged(("", "nothing"), ("transpose/0", "13\n24"))
    assert outcome is Outcome.CORRECT
    assert reason.startswith("votes 1 of 2; 1 malformed, the first: it is not a grid")


async def test_what_cannot_be_judged_is_ungraded() -> None:
    assert (await judged(("", "1"), gold="[[1], []]"))[0] is Outcome.UNGRADED
    assert (await judged(("upside-down", "1")))[0] is Outcome.UNGRADED


async def test_a_gold_answer_that_is_text_is_graded_as_text() -> None:
    assert (await judged(("", "It is copper."), gold="copper"))[0] is Outcome.CORRECT
    assert (await judged(("", "12."), gold="12"))[0] is Outcome.CORRECT
