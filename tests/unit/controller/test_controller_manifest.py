"""What a trial's row says of how it was made: the manifest, what it took by stage, and what early stopping left out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controller.db import runs, trials
from controller.db.access import FULL_ACCESS
from controller.db.trials import Plan
from controller.rules.setup import make_setup
from controller.services import Services
from controller.trial.manifest import instructions
from controller.trial.versions import Versions, changes
from sealkit.config import parse_config
from sealkit.errors import InvalidConfig, Unavailable
from sealkit.resources import Editor, Trial, TrialPhase, TrialState
from sealkit.types import (
    NOT_ASKED,
    Divergence,
    Evaluation,
    EvaluationRequest,
    ModelInfo,
    Outcome,
    Policy,
    Usage,
    Verdict,
    digest_of,
    seed_of,
)
from tests.unit.controller.controller_fakes import DOMAIN
from tests.unit.controller.controller_system import System
from tests.unit.controller.rerun_fakes import ASKED, SAMPLED, TRAINED, TellingServices


async def tried(system: System, services: TellingServices, **changes: Any) -> list[Trial]:
    """Every trial of a finished run, verdicts and manifests included."""
    system.services = services
    run = await system.create(rounds=1, **changes)
    async with system.working():
        await system.until(run)
    return [await system.database.read(trials.get, FULL_ACCESS, trial.name) for trial in await system.trials(run)]


def edits(found: list[Trial]) -> list[Trial]:
    return [t for t in found if t.editor == "policy" and t.state is TrialState.SUCCEEDED]


async def test_the_manifest_holds_what_makes_a_trial_again(system: System) -> None:
    services = TellingServices()
    trial = edits(await tried(system, services))[0]
    how, found = trial.manifest["instructions"], trial.manifest["found"]
    run_id = trial.name.split("/")[1]
    assert how["policy"]["name"] == f"policies/{run_id}-0"
    assert (how["domain"], how["editor"], how["context_id"]) == (DOMAIN, "policy", trial.context_id)
    assert how["sampling"]["seed"] == seed_of(7, "round", 0)
    assert how["row_seed"] == seed_of(how["sampling"]["seed"], trial.context_id, trial.index)
    assert how["inner_seed"] == seed_of(7, "inner loop", 0, trial.context_id, "policy", trial.index)
    assert (how["judge"], how["answering"]["temperature"], how["retention_limit"]) == ("exact", 0.0, 2)
    assert trial.adapter is not None
    assert found["adapter"] == trial.adapter.digest
    assert found["weights_sha256"] == digest_of("as they were", trial.adapter.digest)
    assert found["spec"] in {digest_of(spec) for spec in services.specs}
    assert trial.manifest["versions"]["torch"] == "2.13"
    assert {"engine", "model", "dtype", "device"} <= trial.manifest["versions"].keys()
    assert trial.manifest["versions"]["judge"] == "exact 1"
    assert trial.manifest["versions"]["domain"] == "tiny 1"


async def test_no_text_stands_in_a_manifest_and_no_listing_carries_it(system: System) -> None:
    services = TellingServices()
    services.text = lambda context_id, index, seed: "good " + "long text " * 500
    found = await tried(system, services)
    assert all(len(json.dumps(trial.manifest)) < 3000 for trial in found)
    assert all("long text" not in json.dumps(trial.manifest) for trial in found)
    run_id = found[0].name.split("/")[1]
    assert all(trial.manifest == {} for trial in await system.database.read(trials.of_run, run_id))


async def test_what_a_trial_took_is_told_by_stage_and_adds_up(system: System) -> None:
    found = await tried(system, TellingServices())
    assert edits(found)[0].stage_usage == {"generate": SAMPLED, "train": TRAINED, "evaluate": ASKED}
    passage = next(t for t in found if t.editor == "passage_only")
    assert passage.stage_usage == {"train": TRAINED, "evaluate": ASKED}
    assert all(sum(t.stage_usage.values(), Usage()) == t.usage for t in found)


async def test_what_was_sampled_before_a_failure_is_not_forgotten(system: System) -> None:
    services = TellingServices()
    broken = {"left": 1}

    async def once(call: str, what: str) -> None:
        if call == "train" and broken["left"]:
            broken["left"] = 0
            raise Unavailable("the trainer went away")

    services.before = once
    found = await tried(system, services)
    assert services.calls["sample"] == sum(t.editor == "policy" for t in found)
    assert all(t.stage_usage["generate"] == SAMPLED for t in edits(found))


async def test_retention_divergence_and_flips_are_kept_as_they_were_measured(system: System) -> None:
    class Measuring(TellingServices):
        async def evaluate(self, request: EvaluationRequest) -> Evaluation:
            assert request.measure_divergence is (request.adapter is not None)
            found = await super().evaluate(request)
            return found.model_copy(update={"divergence": Divergence(on_fixed_text=0.25), "batch_variant_rate": 0.125})

    trial = edits(await tried(system, Measuring(), reward={"divergence_weight": 2.0}))[0]
    assert trial.retention is not None
    assert trial.retention.forgetting == trial.forgetting == 0.5
    assert trial.divergence == Divergence(on_fixed_text=0.25)
    assert trial.batch_variant_rate == 0.125
    assert trial.accuracy is not None
    assert trial.baseline_accuracy is not None
    assert trial.reward == pytest.approx(trial.accuracy - trial.baseline_accuracy - 0.5)


class Racing(TellingServices):
    """Stops every trial of self-edit 0 after one question, wrongly answered, where there is early stopping."""

    async def evaluate(self, request: EvaluationRequest) -> Evaluation:
        found = await super().evaluate(request)
        adapter = request.adapter
        if request.early_stopping is None or adapter is None or int(digest_of(adapter.digest)[:4], 16) % 2:
            return found
        left_out = [
            Verdict(query_id=v.query_id, answer="", outcome=Outcome.UNGRADED, reason=NOT_ASKED)
            for v in found.verdicts[1:]
        ]
        first = found.verdicts[0].model_copy(update={"outcome": Outcome.INCORRECT})
        return found.model_copy(update={"verdicts": (first, *left_out), "stopped_early": True})


async def test_a_trial_that_a_race_stopped_has_no_reward_and_is_never_kept(system: System) -> None:
    services = Racing()
    evaluation = {
        "judge": "exact",
        "retention_limit": 2,
        "early_stopping_confidence": 0.9,
        "early_stopping_interval": 1,
    }
    found = await tried(system, services, evaluation=evaluation, selection={"must_beat_passage_only": False})
    stopped = [trial for trial in found if trial.stopped_early]
    assert stopped
    assert all(t.state is TrialState.SUCCEEDED and t.reward is None and not t.selected for t in stopped)
    assert all(t.accuracy == 0.0 for t in stopped), "of what was asked"
    assert all(t.phase is TrialPhase.E_STEP and t.editor == "policy" for t in stopped), "no score is left half done"
    assert all(t.reward is not None for t in edits(found) if not t.stopped_early)


def test_a_race_that_is_surer_than_a_guess_is_asked_for() -> None:
    with pytest.raises(InvalidConfig, match="early_stopping_confidence"):
        parse_config({"evaluation": {"early_stopping_confidence": 0.4}})
    assert parse_config({"evaluation": {"early_stopping_confidence": 0.0}}).evaluation.early_stopping_confidence == 0.0


async def test_held_out_trials_are_alike_for_every_policy_and_others_are_not(system: System) -> None:
    run = await system.create()
    setup = make_setup(await system.database.read(runs.plan, run.name.removeprefix("runs/")), (DOMAIN,))
    plan = Plan(
        run_id=setup.run_id, round=0, trial_id="t", phase=TrialPhase.HELD_OUT, editor=Editor.POLICY, context_id="c1",
        index=0, policy="p",
    )  # fmt: skip
    first = instructions(setup, plan, Policy(name="p"))
    later = instructions(setup, plan.model_copy(update={"round": 1}), Policy(name="p"))
    assert first == later
    taught = plan.model_copy(update={"phase": TrialPhase.E_STEP})
    assert instructions(setup, taught, Policy(name="p")).sampling != first.sampling


async def test_versions_are_asked_for_now_and_then_and_told_apart_where_they_differ() -> None:
    class Asked(TellingServices):
        times = 0

        async def info(self) -> ModelInfo:
            self.times += 1
            return await super().info()

    generator, trainer, evaluator = TellingServices(), TellingServices(), Asked()
    trainer.build = {"torch": "2.14", "threads": "1"}
    now = [0.0]
    versions = Versions(Services(generator, trainer, evaluator), clock=lambda: now[0])
    told = await versions.get()
    assert (told["generator.torch"], told["trainer.torch"], told["threads"]) == ("2.13", "2.14", "1")
    await versions.get()
    assert evaluator.times == 1
    now[0], trainer.build = 60.0, generator.build
    assert (await versions.get())["torch"] == "2.13"
    assert evaluator.times == 2

    async def away(*_: object) -> ModelInfo:
        raise Unavailable("gone")

    now[0], evaluator.info = 120.0, away  # type: ignore[method-assign]
    assert (await versions.get())["torch"] == "2.13", "what is away is taken to be what it was"


def test_a_version_that_one_service_changed_is_told_of_that_one_alone() -> None:
    alike = {"torch": "2.13", "dtype": "float32", "engine": "1"}
    one = {"torch": "2.14", "generator.dtype": "float32", "trainer.dtype": "float64", "evaluator.dtype": "float32"}
    assert list(changes(alike, one)) == [
        ("torch", "2.13", "2.14"),
        ("trainer.dtype", "float32", "float64"),
        ("engine", "1", None),
    ]
    assert list(changes(one, one)) == []
