"""Anchors: what must stay as it is is asked of the base model once a run, and is in every training."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.accept import accept, draw_anchors
from controller.db import runs
from controller.db.documents import NewDocument
from controller.rules.anchors import anchors_of, bundled_anchors, draw
from sealkit.config import RunConfig, parse_config
from sealkit.errors import InvalidConfig, InvalidDataset
from sealkit.learning import learn_config
from sealkit.types import Anchoring, Prompt
from tests.unit.controller.controller_system import System

OWN = [{"id": f"a{i}", "prompt": f"Say {i}."} for i in range(5)]


def config(source: str, **changes: Any) -> RunConfig:
    return parse_config({"inner_loop": {"anchors": {"source": source, **changes}}})


@given(size=st.integers(0, 20), count=st.integers(1, 25), seed=st.integers(0, 5))
def test_the_seed_and_the_ids_alone_decide_what_is_drawn(size: int, count: int, seed: int) -> None:
    known = [{"id": f"a{i}", "prompt": "?"} for i in range(size)]
    drawn = draw(known, count, seed)
    assert len(drawn) == min(size, count)
    assert [record for record in known if record in drawn] == drawn
    assert draw(list(reversed(known)), count, seed) == list(reversed(drawn))


def test_the_bundled_prompts_are_of_many_kinds_and_none_is_in_the_suite() -> None:
    found = bundled_anchors()
    assert len({record["id"] for record in found}) == len(found) >= 300
    assert len({record["kind"] for record in found}) >= 6
    assert len(draw_anchors(config("bundled", count=1024), ())) == len(found)


def test_an_empty_answer_holds_nothing() -> None:
    prompts = {name: Prompt(user=name) for name in ("a", "b", "c")}
    assert [anchor.text for anchor in anchors_of(prompts, {"a": "yes", "b": " \n"})] == ["yes"]


def test_anchors_come_with_the_run_where_the_config_says_so_and_nowhere_else() -> None:
    assert draw_anchors(config("none"), ()) == draw_anchors(config("suite"), ()) == []
    assert draw_anchors(config("file", count=2), [*OWN]) in [[a, b] for a in OWN for b in OWN]
    for source, sent in (("file", []), ("none", OWN), ("bundled", OWN)):
        with pytest.raises(InvalidConfig, match=r"inner_loop\.anchors\.source"):
            draw_anchors(config(source), sent)
    with pytest.raises(InvalidDataset, match=r"anchors\[1\]\.prompt"):
        draw_anchors(config("file"), [OWN[0], {"id": "b", "prompt": " "}])


def test_a_run_that_learns_documents_has_anchors_of_its_own_too() -> None:
    wanted = learn_config("main", {"inner_loop": {"anchors": {"source": "file"}}})
    new, _ = accept(
        request_id="r", display_name="", config=wanted, records=(), retention=(), plugins=(), anchors=OWN,
        documents=[NewDocument(name="a.txt", content=b"A")],
    )  # fmt: skip
    assert new.anchors == tuple(OWN)


async def test_every_training_holds_the_anchors_and_the_base_model_is_asked_once(system: System) -> None:
    chosen = {"source": "bundled", "count": 4, "per_step": 2, "weight": 0.5, "contrast": True, "max_tokens": 7}
    run = await system.create(rounds=2, inner_loop={"anchors": chosen})
    for _ in range(2):  # a second worker process takes over what the first one asked
        async with system.working():
            await system.until(run, lambda now: now.progress.trials_done > 3)
    async with system.working():
        await system.until(run)
    prompts = {record["prompt"] for record in draw(bundled_anchors(), 4, 7)}
    asked = [(adapter, sampling) for adapter, prompt, sampling in system.services.sampled if prompt.user in prompts]
    assert len(asked) == 4
    assert {(adapter, sampling.temperature, sampling.max_tokens) for adapter, sampling in asked} == {(None, 0.0, 7)}
    held = {spec.anchors for spec in system.services.specs}
    assert len(held) == 1
    (anchors,) = held
    assert {anchor.prompt.user for anchor in anchors if anchor.prompt} == prompts
    assert all(anchor.text.endswith(" base") for anchor in anchors)
    assert {spec.anchoring for spec in system.services.specs} == {Anchoring(per_step=2, weight=0.5, contrast=True)}
    plan = await system.database.read(runs.plan, run.name.removeprefix("runs/"))
    assert plan.base_answers is not None
    assert plan.base_answers["anchors"].keys() == {record["id"] for record in plan.anchors}


async def test_questions_of_the_suite_that_are_held_are_not_measured(system: System) -> None:
    async with system.working():
        await system.until(
            await system.create(
                rounds=1, inner_loop={"anchors": {"source": "suite", "count": 2}}, rehearsal={"examples": 1}
            )
        )
    (anchors,) = {spec.anchors for spec in system.services.specs}
    (rehearsal,) = {spec.rehearsal for spec in system.services.specs}
    held = {anchor.prompt.user for anchor in anchors if anchor.prompt}
    assert len(held) == 2
    assert {example.prompt.user for example in rehearsal if example.prompt} <= held
    measured = {query.query_id for request in system.services.evaluated for query in request.retention_queries}
    assert {f"What is {query_id[1:]}?" for query_id in measured}.isdisjoint(held)
    assert len(measured) == 1


async def test_holding_the_whole_suite_is_refused(system: System) -> None:
    with pytest.raises(InvalidConfig, match=r"inner_loop\.anchors\.count: .*none is left to measure"):
        await system.create(inner_loop={"anchors": {"source": "suite"}})


async def test_anchors_that_serve_nothing_are_refused(system: System) -> None:
    with pytest.raises(InvalidConfig, match="serve only `contrast`"):
        await system.create(inner_loop={"anchors": {"source": "bundled", "per_step": 0}})
    await system.create(inner_loop={"anchors": {"source": "bundled", "per_step": 0, "contrast": True}})


async def test_without_anchors_nothing_is_asked(system: System) -> None:
    async with system.working():
        await system.until(await system.create(rounds=1))
    assert {(spec.anchors, spec.anchoring) for spec in system.services.specs} == {((), Anchoring())}
    assert all(prompt.user.startswith("Rewrite") for _, prompt, _ in system.services.sampled)
