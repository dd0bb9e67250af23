"""Made-up runs of three sizes, a client that has one, and their pages."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from random import Random
from typing import Any, cast

from sealkit.client import SealClient
from sealkit.config import RunConfig
from sealkit.errors import UnknownAlias, UnknownPolicy, UnknownRun
from sealkit.report_page import page
from sealkit.report_page.collect import Collected, collect
from sealkit.reports import Continual, Cost, CurvePoint, Estimate, Power, ReportRow, RunReport, TrialMaterial
from sealkit.resources import Alias, AliasChange, GateState, PolicyVersion, Run, RunState, Trial, TrialPhase, TrialState
from sealkit.types import Outcome, Prompt, Query, Retention, TrainingExample, Usage, Verdict

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)></style></title>&\"'{{7*7}}{% raw %}"
HOSTILE = f"{MARKUP}\u202egnirts\u2066 \x00\x1b[31m\u05d0\u05d1 {'<' * 100_000}"
"""Markup, template syntax, direction marks, control characters and a line of 100 kB."""

SIZES: dict[str, dict[str, Any]] = {
    "plain": {},
    "hostile": {"hostile": True},
    "big": {"hostile": True, "trials": 1000, "contexts": 200},
}


class FakeClient:
    """A controller that has one run, by the client's methods."""

    def __init__(self, seed: int = 0, trials: int = 36, contexts: int = 6, hostile: bool = False) -> None:
        self._random = Random(seed)
        self.text = HOSTILE if hostile else "The Ossel rises in the Brenn hills and flows north."
        name = MARKUP if hostile else "demo"
        self.run = Run(
            name="runs/demo-1",
            display_name=name[:256],
            state=RunState.SUCCEEDED,
            config=RunConfig(task="adapt", name="demo").model_dump(mode="json")
            | ({HOSTILE: {HOSTILE[:500]: [HOSTILE]}} if hostile else {}),
            create_time=NOW,
            unread_config=(HOSTILE,) if hostile else (),
        )
        self.contexts = tuple(f"{name}-{number}"[:512] for number in range(contexts))
        self.trials = {trial.name: trial for trial in (self._trial(number) for number in range(trials))}
        self.policies = {policy.name: policy for policy in self._policies()}
        self.alias = Alias(
            name="aliases/production", policy="policies/demo-1-2",
            history=(AliasChange(policy="policies/demo-1-2", time=NOW, reason=self.text),),
        )  # fmt: skip
        self.found = self._report()

    def __enter__(self) -> FakeClient:
        return self

    def __exit__(self, *_: object) -> None: ...

    def _trial(self, number: int) -> Trial:
        draw = self._random
        baseline, accuracy = draw.randint(0, 2) / 5, draw.randint(0, 5) / 5
        forgetting = round(draw.random() ** 2 * 0.5, 3)
        context = self.contexts[number % len(self.contexts)]
        own = number % 9 != 8
        return Trial(
            name=f"runs/demo-1/rounds/{number % len(self.contexts)}/trials/c-{number}",
            round=number % len(self.contexts),
            state=TrialState.SUCCEEDED,
            phase=TrialPhase.E_STEP,
            context_id=context,
            editor="policy" if own else "passage_only",
            index=number % 3,
            policy="policies/demo-1-0",
            completion=self.text if own else "",
            accuracy=accuracy,
            baseline_accuracy=baseline,
            forgetting=forgetting,
            retention=Retention(
                kept=20, accuracy_before=1, accuracy_after=1 - forgetting, forgetting=forgetting,
                lost_query_ids=("suite/1",) if forgetting else (),
            ),
            reward=accuracy - baseline - 0.1 * forgetting,
            selected=own and accuracy - baseline > 0.5,
            stage_seconds={"generate": 1.5, "train": 6.25, "evaluate": 0.75},
            create_time=NOW,
        )  # fmt: skip

    def _policies(self) -> Iterator[PolicyVersion]:
        yield PolicyVersion(name="policies/old-1", run="runs/old", version=1, create_time=NOW)
        for number in range(3):
            yield PolicyVersion(
                name=f"policies/demo-1-{number}",
                run="runs/demo-1",
                version=number,
                parent=f"policies/demo-1-{number - 1}" if number else "policies/old-1",
                round=number - 1 if number else None,
                trials=("runs/demo-1/rounds/0/trials/c-0",) if number else (),
                forgetting=0.05 * number if number else None,
                gate=GateState.PASSED if number else GateState.UNMEASURED,
                gate_reason=self.text if number == 2 else "",
                create_time=NOW,
            )

    def _report(self) -> RunReport:
        def row(key: str, label: str, mean: float) -> ReportRow:
            accuracy = Estimate(mean=mean, low=max(0.0, mean - 0.09), high=min(1.0, mean + 0.09), n=12)
            return ReportRow(key=key, label=label, split=key.partition(".")[0], accuracy=accuracy)

        size = len(self.contexts)
        matrix = [
            tuple(round(min(1.0, 0.1 + (0.7 - 0.04 * (i - j) if i > j else 0.02 * j)), 3) for j in range(size))
            for i in range(size + 1)
        ]
        return RunReport(
            rows=tuple(
                row(f"{split}.{key}", label, mean + shift)
                for split, shift in (("train", 0.0), ("held_out", -0.03))
                for key, label, mean in (
                    ("base", "no adapter", 0.125), ("passage_only", "passage only", 0.35),
                    ("theta_0.self_edit.mean", "self-edits by θ_0, mean", 0.41),
                    ("theta_1.self_edit.mean", "self-edits by θ_1, mean", 0.52),
                    ("theta_2.self_edit.mean", "self-edits by θ_2, mean", 0.55),
                )
            ),
            trial_counts={"succeeded": len(self.trials), f"rejected: {self.text[:60]}": 2},
            kept=sum(trial.selected for trial in self.trials.values()),
            trial_forgetting=Estimate(mean=0.117, low=0.08, high=0.154, n=32),
            policies=tuple(policy for policy in self.policies.values() if policy.run == "runs/demo-1"),
            stage_seconds={"generate": 1.5, "train": 6.25, "evaluate": 0.75},
            rl_gain=Estimate(mean=0.14, low=0.031, high=0.249, n=12),
            verdict=f"The RL step improved the self-edits: θ_2 minus θ_0 is +0.140 [+0.031, +0.249]. "
            f"{self.text if self.text is HOSTILE else ''}",
            usage=Usage(),
            wall_seconds=3725,
            curve=(
                CurvePoint(policy="policies/demo-1-0", accuracy=Estimate(mean=0.38, low=0.29, high=0.47, n=12)),
                CurvePoint(
                    policy="policies/demo-1-1", accuracy=Estimate(mean=0.49, low=0.4, high=0.58, n=12),
                    gain=Estimate(mean=0.11, low=0.012, high=0.208, n=12), adopted=False, reason=self.text,
                ),
            ),
            power=Power(contexts=12, samples=1, deviation=0.2, detectable=0.173, measured=True),
            cost=Cost(
                stages={
                    "generate": Usage(completion_tokens=40_321, device_seconds=54.5),
                    "train": Usage(train_tokens=120_764, device_seconds=225.25),
                    "evaluate": Usage(prompt_tokens=80_113, device_seconds=27.125),
                },
                accepted=9,
                device_seconds_per_point=21.7,
            ),
            round_costs=dict.fromkeys((0, 1), Cost(stages={"train": Usage(train_tokens=100, device_seconds=3)})),
            continual=Continual(
                contexts=self.contexts,
                matrix=tuple(matrix),
                just_learned=Estimate(mean=0.78, low=0.7, high=0.86, n=size),
                at_end=Estimate(mean=0.71, low=0.61, high=0.81, n=size),
                bwt=Estimate(mean=-0.083, low=-0.15, high=-0.016, n=size - 1),
            ),
        )  # fmt: skip

    def get_run(self, name: str) -> Run:
        if name != self.run.name:
            raise UnknownRun(f"there is no run {name}")
        return self.run

    def report(self, name: str) -> RunReport:
        return self.found

    def list_trials(self, parent: str, state: Any = None) -> Iterator[Trial]:
        rerun = next(iter(self.trials.values()))
        yield rerun.changed(name=f"{rerun.name}.rerun-1", phase=TrialPhase.RERUN, reward=9.0)
        yield from self.trials.values()

    def list_aliases(self) -> Iterator[Alias]:
        yield self.alias
        yield self.alias.changed(name="aliases/other", policy="policies/old-1")

    def get_alias(self, name: str) -> Alias:
        if name != self.alias.name:
            raise UnknownAlias(f"there is no alias {name}")
        return self.alias

    def get_policy(self, name: str) -> PolicyVersion:
        if name not in self.policies:
            raise UnknownPolicy(f"there is no policy {name}")
        return self.policies[name]

    def get_trial(self, name: str) -> Trial:
        def verdict(number: int, outcome: Outcome) -> Verdict:
            return Verdict(query_id=f"q/{number}", answer=self.text, outcome=outcome, reason=self.text)

        outcomes = [(Outcome.INCORRECT, Outcome.CORRECT), (Outcome.CORRECT, Outcome.INCORRECT)] * 2
        return self.trials[name].changed(
            verdicts=tuple(verdict(number, after) for number, (_, after) in enumerate(outcomes)),
            baseline_verdicts=tuple(verdict(number, before) for number, (before, _) in enumerate(outcomes)),
            manifest={"found": {"steps": 20, "final_loss": 0.321}, "versions": {"domain": self.text, "torch": "2.9"}},
        )

    def get_trial_material(self, name: str) -> TrialMaterial:
        def query(name: str) -> Query:
            return Query(query_id=name, question=f"Where does {name} rise?", gold=self.text, prompt=Prompt(user="?"))

        examples = (TrainingExample(text=self.text, prompt=Prompt(user=self.text)),) * 7
        return TrialMaterial(
            queries=tuple(query(f"q/{number}") for number in range(4)),
            lost=(query("suite/1"),),
            examples=examples,
            examples_total=7,
        )


@cache
def collected(kind: str) -> Collected:
    client = FakeClient(**SIZES[kind])
    return collect(cast(SealClient, client), client.run)


@cache
def html(kind: str) -> str:
    return page.render(collected(kind))
