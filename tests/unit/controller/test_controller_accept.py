"""What a run is refused for, and what it is named."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.accept import accept, check_contexts, default_retention, run_id
from controller.rules.setup import retention_query
from sealkit.domains.base import Context
from sealkit.errors import InvalidConfig, InvalidDataset, UnknownDomain, UnknownJudge
from sealkit.names import trial_id
from sealkit.resources import Editor, TrialPhase
from tests.unit.controller.controller_fakes import DOMAIN, RETENTION, records, tiny_config


def accepted(**changes: Any) -> Any:
    arguments: dict[str, Any] = {
        "request_id": "r", "display_name": "", "config": tiny_config(), "records": records(), "retention": RETENTION,
        "plugins": (DOMAIN,),
    }  # fmt: skip
    return accept(**{**arguments, **changes})


def test_the_resolved_config_is_kept() -> None:
    new, contexts = accepted()
    assert new.config.m_step.lora.rank == 64
    assert [context.context_id for context in contexts] == [f"c{i}" for i in range(6)]


def test_the_digest_tells_whether_the_content_is_the_same() -> None:
    first = accepted()[0].digest
    assert accepted(request_id="other")[0].digest == first
    for change in ({"config": tiny_config(rounds=3)}, {"records": records(3)}, {"retention": RETENTION[:1]}):
        assert accepted(**change)[0].digest != first


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"config": tiny_config(rounds=0)}, InvalidConfig, "rounds"),
        ({"config": tiny_config(passage_only=False)}, InvalidConfig, "must_beat_passage_only"),
        ({"config": tiny_config(evaluation={"judge": "coin"})}, UnknownJudge, "coin"),
        ({"plugins": ()}, UnknownDomain, "SEAL_CONTROLLER_DOMAIN_PLUGINS"),
        ({"records": records(train=0)}, InvalidDataset, "train"),
        ({"records": [*records(), records()[0]]}, InvalidDataset, "'c0' comes more than once"),
        ({"records": [{"id": "a", "split": "tain", "text": "x"}]}, InvalidDataset, r"records\[0\].split"),
        ({"retention": [{"id": "a", "question": " ", "answer": "b"}]}, InvalidDataset, r"retention\[0\].question"),
        ({"retention": [{"id": "a", "question": "q"}]}, InvalidDataset, r"retention\[0\].answer"),
        ({"retention": [RETENTION[0], RETENTION[0]]}, InvalidDataset, "'r0' comes more than once"),
    ],
)
def test_bad_input_is_refused_by_name(change: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        accepted(**change)


def test_a_retention_question_may_have_several_answers() -> None:
    suite = [
        {"id": "a", "question": "q", "answer": ["one", "two", "one"]},
        {"id": "b", "question": "q", "answer": 7},
        {"id": "c", "question": "q", "answer": "x", "note": 1},
    ]
    kept = accepted(retention=suite)[0].retention
    assert [record["answer"] for record in kept] == ["one", "7", "x"]
    assert [retention_query(record).golds for record in kept] == [("one", "two"), ("7",), ("x",)]
    assert kept[2] == {"id": "c", "question": "q", "answer": "x"}  # as it has always been stored
    with pytest.raises(InvalidDataset, match=r"retention\[0\]\.answer: more than 256"):
        accepted(retention=[{"id": "a", "question": "q", "answer": [str(n) for n in range(257)]}])


def test_without_a_suite_the_projects_own_is_used() -> None:
    assert accepted(retention=[])[0].retention == tuple(default_retention())
    assert len(default_retention()) > 20


@given(st.text(max_size=300), st.text(min_size=1))
def test_run_ids_fit_the_contract(name: str, request: str) -> None:
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", run_id(name, request))


@given(st.lists(st.text(min_size=1, max_size=512), min_size=2, max_size=6, unique=True))
def test_trial_ids_fit_the_contract_and_differ(context_ids: list[str]) -> None:
    made = [
        trial_id(phase, editor, context_id, index, version)
        for context_id in context_ids
        for phase, editor, index, version in (
            (TrialPhase.E_STEP, Editor.POLICY, 0, 0),
            (TrialPhase.E_STEP, Editor.POLICY, 1, 0),
            (TrialPhase.E_STEP, Editor.PASSAGE_ONLY, 0, 0),
            (TrialPhase.HELD_OUT, Editor.POLICY, 0, 0),
            (TrialPhase.HELD_OUT, Editor.POLICY, 0, 1),
            (TrialPhase.HELD_OUT, Editor.PASSAGE_ONLY, 0, 0),
        )
    ]
    assert len(set(made)) == len(made)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,200}", one) for one in made)


def test_a_plain_context_id_is_read_in_the_trials_name() -> None:
    assert trial_id(TrialPhase.E_STEP, Editor.POLICY, "moss-7", 2, 0) == "moss-7-2"
    assert trial_id(TrialPhase.HELD_OUT, Editor.POLICY, "moss-7", 0, 1) == "heldout-theta1-moss-7-0"


def test_no_context_has_a_name_that_controls_a_terminal() -> None:
    good = Context(context_id="日本 ok", split="train", payload={})
    assert check_contexts([good]) == [good]
    for name in ("a\nb", "a\x1b[2J", "a\u202eb", "a\x85"):
        with pytest.raises(InvalidDataset, match="control character"):
            check_contexts([good, Context(context_id=name, split="train", payload={})])
