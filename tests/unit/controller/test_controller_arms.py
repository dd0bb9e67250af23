"""Arms: other writers beside the policy."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from controller.accept import accept
from controller.db import runs
from controller.services import Services
from sealkit.errors import EndpointDenied, InvalidConfig, Unsupported
from sealkit.names import trial_id
from sealkit.resources import Editor, RunState, TrialPhase, TrialState
from sealkit.types import ModelInfo
from tests.unit.controller.changes import change
from tests.unit.controller.controller_fakes import DOMAIN, MODEL, RETENTION, FakeServices, records, tiny_config
from tests.unit.controller.controller_system import System

ARMS = ["policy", "base", "oracle"]


async def test_every_arm_writes_and_only_the_policy_teaches(system: System) -> None:
    async with system.working():
        selection = {"must_gain": False, "must_beat_passage_only": False}
        run = await system.until(await system.create(editor={"k": 3, "arms": ARMS}, selection=selection))
    assert run.state is RunState.SUCCEEDED
    trials = await system.trials(run)
    assert Counter((t.phase, t.editor) for t in trials) == {
        (TrialPhase.E_STEP, "policy"): 2 * 2 * 3,
        (TrialPhase.E_STEP, "base"): 2 * 2 * 3,
        (TrialPhase.E_STEP, "oracle"): 2 * 2,  # it says the same each time
        (TrialPhase.E_STEP, "passage_only"): 2 * 2,
        (TrialPhase.HELD_OUT, "policy"): 3 * 2,
        (TrialPhase.HELD_OUT, "base"): 2,
        (TrialPhase.HELD_OUT, "oracle"): 2,
        (TrialPhase.HELD_OUT, "passage_only"): 2,
    }
    assert run.progress.trials_done == run.progress.trials_total == len(trials)
    assert {t.editor for t in trials if t.selected} == {Editor.POLICY}
    assert all(t.completion.startswith("By hand: Fact") for t in trials if t.editor == "oracle")
    last = [t for t in trials if "/rounds/1/" in t.name and t.phase is TrialPhase.E_STEP]
    wrote = {editor: {t.completion.rsplit(" ", 1)[1] for t in last if t.editor == editor} for editor in ARMS}
    assert wrote["base"] == {"base"}
    assert "base" not in wrote["policy"]


async def test_an_arm_may_teach_where_the_config_says_so(system: System) -> None:
    async with system.working():
        selection = {"learn_from": ["oracle"], "must_gain": False, "must_beat_passage_only": False}
        run = await system.until(await system.create(rounds=1, editor={"k": 1, "arms": ARMS}, selection=selection))
    assert {t.editor for t in await system.trials(run) if t.selected} == {"oracle"}


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("editor", {"arms": ["policy", "gpt"]}, "arms.1: unknown editor 'gpt'; use one of base, oracle, policy"),
        ("editor", {"arms": ["policy", "policy"]}, "an arm is listed twice"),
        ("editor", {"constrained": True}, "completions of the domain tiny have no schema"),
        ("selection", {"learn_from": ["policy", "orcale"]}, "selection.learn_from.1: unknown editor 'orcale'"),
    ],
)
async def test_what_no_arm_can_do_is_refused(
    system: System, section: str, values: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidConfig, match=message):
        await system.create(**{section: values})


def test_names_of_arms_never_meet() -> None:
    pairs = [("policy", "by-a-b"), ("a", "b-c"), ("a-b", "c"), ("policy", "a-b-c"), ("a.b", "c"), ("a b", "c")]
    for phase in (TrialPhase.E_STEP, TrialPhase.HELD_OUT):
        names = {trial_id(phase, editor, context, 0, 0) for editor, context in pairs}
        assert len(names) == len(pairs)


async def test_an_outside_editor_writes_as_an_arm_by_its_name(system: System) -> None:
    new, contexts = accept(
        request_id="r", display_name="", config=tiny_config(rounds=1, editor={"k": 2, "arms": ["policy", "gpt"]}),
        records=records(), retention=RETENTION, plugins=(DOMAIN,), outside=("gpt",),
    )  # fmt: skip
    run = await system.database.write(runs.create, change(f"runs/{new.run_id}", "r"), new, contexts)
    async with system.working():
        run = await system.until(run)
    trials = await system.trials(run)
    wrote = {t.completion.rsplit(" ", 1)[1] for t in trials if t.editor == "gpt"}
    assert wrote == {"gpt"}
    assert Counter(t.phase for t in trials if t.editor == "gpt") == {TrialPhase.E_STEP: 4, TrialPhase.HELD_OUT: 2}


async def test_an_outside_editor_that_denies_us_fails_its_trials_and_no_others(system: System) -> None:
    sample = system.services.sample

    def denied(*args: Any, editor: str = "", **asked: Any) -> Any:
        if editor:
            raise EndpointDenied("https://host answered 401 (the key in $OUTSIDE_KEY)")
        return sample(*args, editor=editor, **asked)

    system.services.sample = denied  # type: ignore[method-assign]
    new, contexts = accept(
        request_id="r", display_name="", config=tiny_config(rounds=1, editor={"k": 2, "arms": ["policy", "gpt"]}),
        records=records(), retention=RETENTION, plugins=(DOMAIN,), outside=("gpt",),
    )  # fmt: skip
    run = await system.database.write(runs.create, change(f"runs/{new.run_id}", "r"), new, contexts)
    async with system.working():
        run = await system.until(run)
    assert run.state is RunState.SUCCEEDED
    failed = [t for t in await system.trials(run) if t.state is TrialState.FAILED]
    assert {(t.editor, t.error.reason) for t in failed if t.error} == {("gpt", "ENDPOINT_DENIED")}
    assert len(failed) == 6


async def test_a_generator_that_takes_no_adapters_is_refused_before_the_run_begins(system: System) -> None:
    fixed = MODEL.model_copy(update={"build": {"adapters": "fixed"}})
    with pytest.raises(Unsupported, match="give it backend vllm or transformers"):
        await Services(Generator(fixed), system.services, system.services).base_model(policy_moves=True)
    found = await Services(Generator(fixed), system.services, system.services).base_model(policy_moves=False)
    assert found == MODEL


async def test_a_reward_that_weighs_what_nobody_tells_is_refused_before_the_run_begins(system: System) -> None:
    system.services = Generator(MODEL.model_copy(update={"build": {"divergence": "none"}}))
    async with system.working():
        run = await system.until(await system.create(reward={"divergence_weight": 0.5}))
    assert run.state is RunState.FAILED
    assert run.error is not None
    assert (run.error.reason, system.services.calls.total()) == ("UNSUPPORTED", 0)


class Generator(FakeServices):
    """One that holds another model, or holds it otherwise."""

    def __init__(self, model: ModelInfo) -> None:
        super().__init__()
        self._model = model

    async def info(self) -> ModelInfo:
        return self._model
