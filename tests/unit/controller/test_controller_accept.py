"""Which contexts a run uses, decided where it is accepted."""

import pytest

from controller.accept import accept, hold_out
from sealkit.domain import Context
from sealkit.errors import InvalidDataset


def contexts(*splits: str) -> list[Context]:
    return [Context(context_id=f"c{i}", split=split, payload={}) for i, split in enumerate(splits)]


def record(number: int) -> dict[str, object]:
    return {"title": f"T{number}", "context": f"Text {number}.", "questions": [{"question": "Q?", "answer": "A"}]}


def test_marked_contexts_are_thinned_and_never_taught() -> None:
    used = hold_out(contexts("train", "heldout", "heldout", "train", "heldout"), 2, seed=1)
    assert [c.split for c in used].count("heldout") == 2
    assert {c.context_id for c in used if c.split == "train"} == {"c0", "c3"}


def test_unmarked_datasets_give_some_of_theirs_by_the_seed() -> None:
    one, other = (hold_out(contexts(*["train"] * 20), 5, seed=seed) for seed in (1, 2))
    assert len(one) == len(other) == 20
    held = [{c.context_id for c in used if c.split == "heldout"} for used in (one, other)]
    assert [len(h) for h in held] == [5, 5]
    assert held[0] != held[1]
    assert hold_out(contexts(*["train"] * 20), 5, seed=1) == one


def test_without_a_count_the_marks_stand() -> None:
    marked = contexts("train", "heldout")
    assert hold_out(marked, 0, seed=0) == marked


def test_a_limit_is_applied_and_nothing_left_to_learn_from_is_refused() -> None:
    def accepted(**dataset: int) -> int:
        _, used = accept(
            request_id="r",
            display_name="",
            config={"dataset": dataset},
            records=[record(i) for i in range(6)],
            retention=[],
            plugins=(),
        )
        return len(used)

    assert accepted(limit=3) == 3
    with pytest.raises(InvalidDataset, match="nothing to learn from"):
        accepted(limit=3, held_out=3)
