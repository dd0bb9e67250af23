"""Arms: other writers beside the policy."""

from __future__ import annotations

from collections import Counter

import pytest

from controller.trial_id import trial_id
from sealkit.errors import InvalidConfig
from sealkit.resources import Editor, RunState, TrialPhase
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
    ("editor", "message"),
    [
        ({"arms": ["policy", "gpt"]}, "nobody is named 'gpt'; there are base, oracle, policy"),
        ({"arms": ["policy", "policy"]}, "an arm comes twice"),
        ({"constrained": True}, "completions of the domain tiny have no schema"),
    ],
)
async def test_what_no_arm_can_do_is_refused(system: System, editor: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        await system.create(editor=editor)


def test_names_of_arms_never_meet() -> None:
    pairs = [("policy", "by-a-b"), ("a", "b-c"), ("a-b", "c"), ("policy", "a-b-c"), ("a.b", "c"), ("a b", "c")]
    for phase in (TrialPhase.E_STEP, TrialPhase.HELD_OUT):
        names = {trial_id(phase, editor, context, 0, 0) for editor, context in pairs}
        assert len(names) == len(pairs)
