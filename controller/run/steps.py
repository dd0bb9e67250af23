"""The steps that `rest_em.py`, `adapt.py` and `learn.py` are written in. Each step is idempotent.

The database records what was done. Trials go through the queue to any free worker; their results are awaited here. A
driver has the run's lease: every write is refused once another driver took the run over or it was cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import structlog
from sqlalchemy import Connection

from controller import waits
from controller.db import contexts, events, policies, runs, trials
from controller.db.access import FULL_ACCESS
from controller.db.database import Database
from controller.db.documents import DocumentOutcome
from controller.db.leases import RunLease, hold
from controller.db.tables import now
from controller.db.trials import Plan
from controller.heartbeats import Heartbeats
from controller.retry import retry_until_available, training_result
from controller.rules import gate
from controller.rules.arms import edits_of_group, scoring_trials
from controller.rules.commits import consolidated
from controller.rules.scores import policy_scores
from controller.rules.selection import RULES, BothVerdicts, Group, distinct
from controller.rules.setup import Setup
from controller.run.routing import Routing
from controller.services import Services
from sealkit.config import RunConfig, SelectionConfig
from sealkit.domains.base import Context
from sealkit.errors import FailedPrecondition, Unavailable
from sealkit.names import policy_name, trial_id
from sealkit.observability import tracing
from sealkit.observability.metrics import GATE
from sealkit.queue import Queue
from sealkit.resources import Editor, GateState, PolicyVersion, Trial, TrialPhase, TrialState
from sealkit.types import AdapterRef, Policy, PolicyExample, TrainingResult, Usage, Verdict, seed_of

log = structlog.get_logger(__name__)

_POLL_SECONDS = 0.5
_COLLECT_SECONDS = 0.02
_QUEUEING = "queueing trials"


class RunSteps:
    """A run and its driver. Every method raises LeaseLost once the run was taken over or cancelled."""

    def __init__(
        self,
        lease: RunLease,
        setup: Setup,
        *,
        database: Database,
        queue: Queue,
        services: Services,
        heartbeats: Heartbeats,
        plugins: Sequence[str] = (),
    ) -> None:
        self._lease = lease
        self._setup = setup
        self._database = database
        self._queue = queue
        self._services = services
        self._heartbeats = heartbeats
        self._routing = Routing(lease, setup, database=database, services=services, plugins=plugins)
        self.base_model = ""
        """Digest of the services' base model; empty until the run begins."""
        self.train: list[Context] = []
        """Contexts to learn from, in the order of the dataset."""
        self._ended: dict[str, asyncio.Event] = {}
        self.held_out: list[Context] = []
        """Held-out contexts; none if the config disables the scoring."""

    # --- the run ------------------------------------------------------------------------------------------------------
    @property
    def config(self) -> RunConfig:
        """The run's config."""
        return self._setup.config

    @property
    def selection(self) -> SelectionConfig:
        """How self-edits are chosen."""
        return self.config.selection

    async def begin(self) -> PolicyVersion:
        """θ_0, which need not be measured yet. Raises ModelMismatch if the services, or the policy to start from, have
        different base models; for a run on an alias also what `policies.begin` raises."""
        moves = Editor.POLICY in self.config.editor.arms and (
            self.config.rounds > 1 or self.config.held_out.samples > 0
        )
        weighed = self.config.reward.divergence_weight > 0
        asked = partial(self._services.base_model, policy_moves=moves, divergence=weighed)
        base = await retry_until_available(asked, doing="asking for the base model")
        self.base_model = base.digest
        return await self._database.write(
            policies.begin,
            self._lease,
            start_policy=self.config.start_policy,
            base_model=base.digest,
            domain=self.config.domain.name,
        )

    async def first_policy(self) -> PolicyVersion:
        """θ_0, measured. Raises what `begin` raises."""
        theta = await self.begin()
        self.train = await self._database.read(contexts.of_split, self._lease.run_id, "train")
        if self.config.held_out.samples:
            self.held_out = await self._database.read(contexts.of_split, self._lease.run_id, "heldout")
        if theta.gate is not GateState.UNMEASURED:
            return theta
        return await self._database.write(policies.measured, self._lease, await self.measured(theta))

    async def stage(self, t: int, name: str) -> None:
        """Records that a stage begins."""
        log.info("stage", round=t, stage=name)
        await self._database.write(runs.stage, self._lease, t, name)

    async def open_round(self, t: int, theta: PolicyVersion) -> PolicyVersion | None:
        """Opens round t under θ_t; returns θ_{t+1} if the round is done."""
        following = await self._database.write(policies.begin_round, self._lease, t, theta.name)
        return await self._database.read(policies.get, FULL_ACCESS, following) if following else None

    async def close_round(
        self,
        t: int,
        theta: PolicyVersion,
        made: PolicyVersion,
        *,
        kept: int,
        scored: bool,
        document: DocumentOutcome | None = None,
    ) -> PolicyVersion:
        """Closes round t with θ_{t+1}. If the policy stays, it is not published or scored again. `scored`: whether the
        policy that was made is already scored on the held-out contexts; `document`: what became of the round's
        document."""
        following = gate.next_policy(theta, made)
        moves = following.name != theta.name
        following = await self._database.write(
            policies.end_round,
            self._lease,
            t,
            made,
            following,
            kept=kept,
            alias=self.config.gate.alias if moves else "",
            fewer_trials=0 if moves or scored else scoring_trials(self.config, len(self.held_out)),
            document=document,
        )
        if made.name != theta.name:
            GATE.labels(made.gate.value).inc()
        log.info("round done", round=t, kept=kept, policy=following.name, gate=made.gate_reason)
        return following

    def round_that_made(self, theta: PolicyVersion) -> int:
        """The round that a policy's scoring belongs to: the one that made it; the first for θ_0."""
        return theta.round or 0

    # --- the E-step ---------------------------------------------------------------------------------------------------
    def contexts_of_round(self, t: int) -> list[Context]:
        """The contexts that round t learns from."""
        return self._setup.contexts_of_round(self.train, t)

    def self_edits(self, t: int, phase: TrialPhase, theta: PolicyVersion, context: Context) -> list[Plan]:
        """The trials of a context's self-edits, of every arm: k to learn from, `held_out.samples` to score a policy."""
        ready = self._setup.domain.ready_made(context)
        arms = edits_of_group(self.config, phase, ready, first=self._is_first(theta))
        return [self._plan(t, phase, theta, context, editor, i) for editor, count in arms for i in range(count)]

    async def passage_only(
        self, t: int, phase: TrialPhase, theta: PolicyVersion, context: Context, edits: Sequence[Trial]
    ) -> list[Plan]:
        """The trial of the raw passage, with the average budget of the group's self-edits; on held-out contexts only
        under θ_0; none if the config disables it."""
        if not self.config.passage_only or (phase is TrialPhase.HELD_OUT and not self._is_first(theta)):
            return []
        names = [trial.name for trial in edits]
        budget = await self._database.read(trials.mean_trained_characters, names)
        plan = self._plan(t, phase, theta, context, Editor.PASSAGE_ONLY, 0)
        return [plan.changed(target_characters=budget)]

    async def tried(self, plans: Sequence[Plan]) -> list[Trial]:
        """Queues the trials, and returns them when all have ended. Rows are written first, then messages; if Redis is
        unavailable, `reconcile` queues the messages later."""
        names = [plan.name for plan in plans]
        new = await self._database.write(trials.add, self._lease, plans)
        try:
            await self._put(new)
        except Unavailable as error:
            log.warning("trials not queued yet", trials=len(new), message=error.message)
            await waits.failed(_QUEUEING, error)
        heard = [self._ended.setdefault(name, asyncio.Event()) for name in names]
        for name in await self._database.read(trials.ended, names):
            self._ended[name].set()
        for one in heard:
            await one.wait()
        for name in names:
            self._ended.pop(name, None)
        return await self._database.read(trials.named, names)

    async def _put(self, names: Sequence[str]) -> None:
        with tracing.span("put trials", kind="producer", attributes={"seal.trials": len(names)}) as place:
            await self._queue.put(self._lease.run_id, names, trace=place)

    async def check_any_worked(self, groups: Sequence[Group]) -> None:
        """Raises FailedPrecondition if every trial of an E-step that was trained failed, because later ones would fail
        too, and the run would end as if it had tried something. One context's failures may be its own: if some of its
        self-edits were rejected, the run goes on as long as any of its trials has succeeded."""
        edits = [trial for group in groups for trial in group.edits]
        usable = [trial for trial in edits if trial.state is not TrialState.REJECTED]
        trained = usable or [group.passage for group in groups if group.passage]
        if not trained or any(trial.state is not TrialState.FAILED for trial in trained):
            return
        rejected = len(edits) - len(usable)
        if rejected and len(groups) == 1 and await self._database.read(trials.any_succeeded, self._lease.run_id):
            return
        error = trained[0].error
        why = f"{error.reason}: {error.message}" if error else "for no recorded reason"
        others = f" (of {rejected} more the self-edit was not usable)" if rejected else ""
        raise FailedPrecondition(
            f"all {len(trained)} trials of the E-step that were trained failed{others}, the first with {why}; fix "
            "that, then resume the run"
        )

    async def verdicts_of(self, group: Group) -> dict[str, BothVerdicts]:
        """The verdicts of the group's trials, by name; empty if the selection rule does not need them."""
        if not RULES[self.selection.rule].needs_verdicts:
            return {}
        return {t.name: await self._database.read(trials.paired_verdicts, t.name) for t in group.edits}

    # --- the M-step, or a commit --------------------------------------------------------------------------------------
    async def select(self, t: int, kept: Sequence[Trial]) -> None:
        """Marks the trials of round t that selection kept."""
        await self._database.write(trials.choose, self._lease, t, [trial.name for trial in kept])

    async def made_policy(self, t: int, theta: PolicyVersion) -> PolicyVersion:
        """θ_{t+1}, trained and measured. It is stored if it is still to be compared on the held-out contexts, because
        trials refer to it; from then on, the round's E-step is settled."""
        if stored := await self._database.read(policies.made_in, self._lease.run_id, t):
            return stored
        made = gate.pending(await self.measured(await self._trained(t, theta)), self.config.gate)
        return await self._database.write(policies.add, self._lease, made) if made.gate is GateState.PENDING else made

    async def _trained(self, t: int, theta: PolicyVersion) -> PolicyVersion:
        """θ_{t+1} from the trials kept in round t, or in all rounds so far if the config trains from the base model."""
        from_base = self.config.m_step.start_from == "base"
        kept = await self._database.read(
            trials.chosen, self._lease.run_id, from_round=0 if from_base else t, to_round=t
        )
        if self.config.m_step.drop_duplicates:
            kept = distinct(kept)
        with tracing.span("M-step", attributes={"seal.round": t}):
            result = await retry_until_available(lambda: self._fine_tune(t, theta, kept), doing="M-step")
        return self._version(t, theta, result.adapter, kept, result.usage)

    async def join(self, t: int, theta: PolicyVersion, best: Trial) -> PolicyVersion:
        """θ_{t+1}: the adapter of a trial of round t joined to θ_t's, as it was scored."""
        assert best.adapter is not None  # only trials with a score are kept
        return self._version(t, theta, await self._joined(_policy(theta), best.adapter), [best], Usage())

    async def commit(self, t: int, theta: PolicyVersion, names: Sequence[str]) -> PolicyVersion:
        """θ_{t+1} of these trials, of any runs: routes to their adapters, or one adapter that is trained on all."""
        return await (self.route if self.config.adapt.commit == "route" else self.consolidate)(t, theta, names)

    async def route(self, t: int, theta: PolicyVersion, names: Sequence[str]) -> PolicyVersion:
        """θ_{t+1}: the adapters of these trials, each for the prompts that are about its context; without any, the base
        model."""
        kept = await self._database.read(trials.named, names)
        routes = await self._routing.routes(kept)
        return self._version(t, theta, await self._routing.write(t, routes, kept) if routes else None, kept, Usage())

    async def consolidate(self, t: int, theta: PolicyVersion, names: Sequence[str]) -> PolicyVersion:
        """θ_{t+1}: one adapter over the policy that trials start from, trained on these trials, of any runs; without
        any, that policy itself."""
        kept = await self._database.read(trials.named, names)
        first = await self._database.read(policies.get, FULL_ACCESS, policy_name(self._lease.run_id, 0))
        below = self._setup.started_from(_policy(first))
        if not kept:
            return self._version(t, theta, below.adapter, kept, Usage())
        about = await self._database.read(contexts.of_trials, kept)
        spec = await asyncio.to_thread(consolidated, self._setup, about, kept, t)

        async def train() -> TrainingResult:
            return await training_result(self._services.trainer.train_adapter(below, spec, owner=self._lease.run))

        with tracing.span("consolidation", attributes={"seal.round": t}):
            result = await retry_until_available(train, doing="consolidation")
            joined = await self._joined(below, result.adapter)
        return self._version(t, theta, joined, kept, result.usage)

    async def measured(self, theta: PolicyVersion, before: Sequence[Verdict] = ()) -> PolicyVersion:
        """The policy with what it forgot and the gate's decision; in an adaptation also with its row of R. `before`:
        verdicts of the version before it, on what it must not forget either."""
        with tracing.span("measure policy"):
            return await retry_until_available(
                lambda: gate.measured(theta, self._setup, self._services.evaluator, self.examined, before),
                doing="measuring a policy",
            )

    @property
    def examined(self) -> Sequence[Context]:
        """The contexts whose queries every policy of the run answers."""
        return self.train if self.config.task == "adapt" else ()

    async def _joined(self, below: Policy, adapter: AdapterRef) -> AdapterRef:
        return await retry_until_available(
            lambda: self._services.trainer.join_adapters(below, adapter), doing="joining adapters"
        )

    def _version(
        self, t: int, theta: PolicyVersion, adapter: AdapterRef | None, kept: Sequence[Trial], usage: Usage
    ) -> PolicyVersion:
        return PolicyVersion(
            name=policy_name(self._lease.run_id, t + 1),
            run=self._lease.run,
            version=t + 1,
            parent=theta.name,
            round=t,
            adapter=adapter,
            trials=tuple(trial.name for trial in kept),
            create_time=now(),
            usage=usage,
        )

    async def _fine_tune(self, t: int, theta: PolicyVersion, kept: Sequence[Trial]) -> TrainingResult:
        config, by_id = self.config.m_step, {context.context_id: context for context in self.train}
        updates = self._services.trainer.train_policy(
            _policy(theta),
            [PolicyExample(prompt=self._setup.prompt(by_id[k.context_id]), completion=k.completion) for k in kept],
            config.lora,
            config.optimisation,
            from_parent=config.start_from == "policy" and theta.adapter is not None,
            seed=seed_of(self.config.seed, "M-step", t),
            owner=self._lease.run,
        )
        return await training_result(updates)

    # --- the score of a policy ----------------------------------------------------------------------------------------
    async def keep_score(self, theta: PolicyVersion, groups: Sequence[Group]) -> list[Trial]:
        """Records a policy's mean accuracy on held-out contexts, as the report counts it; returns the trials."""
        tried = [t for g in groups for t in (*g.edits, *([g.passage] if g.passage else ()))]
        found = policy_scores(tried, theta.name).mean()
        await self._database.write(policies.score, self._lease, theta.name, found.mean if found else None)
        return tried

    def _is_first(self, theta: PolicyVersion) -> bool:
        return theta.round is None

    def _plan(self, t: int, phase: TrialPhase, theta: PolicyVersion, context: Context, editor: str, index: int) -> Plan:
        return Plan(
            run_id=self._lease.run_id,
            round=t,
            trial_id=trial_id(phase, editor, context.context_id, index, theta.version),
            phase=phase,
            editor=editor,
            context_id=context.context_id,
            index=index,
            policy=theta.name,
        )

    # --- in the background --------------------------------------------------------------------------------------------
    async def follow(self) -> None:
        """Watches for trials that end, in any process; never returns. Raises LeaseLost."""
        seen = 0
        while True:
            heard = self._database.notifier.subscribe()
            names, seen = await self._database.read(_news, self._lease, seen)
            for name in names:
                if awaited := self._ended.get(name):  # a trial that is awaited later is read from the database then
                    awaited.set()
            await self._database.notifier.wait(heard, seconds=_POLL_SECONDS)
            await asyncio.sleep(_COLLECT_SECONDS)

    async def reconcile(self, every_seconds: float) -> None:
        """Queues unfinished trials again that the queue has lost or that dead workers had; never returns. Raises
        LeaseLost."""
        while True:
            try:
                await self._reconcile()
                await waits.answered(_QUEUEING)
            except Unavailable as error:
                log.warning("not reconciled", message=error.message)
                await waits.failed(_QUEUEING, error)
            await asyncio.sleep(every_seconds)

    async def _reconcile(self) -> None:
        dead = await self._heartbeats.dead()
        waiting, orphaned = await self._database.read(trials.unfinished, self._lease.run_id, dead)
        if orphaned:
            log.warning("workers died", trials=len(orphaned))
            await self._database.write(trials.put_back, self._lease, dead)
        unfinished = [*orphaned, *waiting]
        # Redis measures idle time by the wall clock, which may be set back: a dead worker's message may never look
        # idle.
        queued = await self._queue.bodies(self._lease.run_id, but_of=dead) if unfinished else set()
        missing = [name for name in unfinished if name not in queued]
        if missing:
            log.warning("queue has lost trials", trials=len(missing))
            await self._put(missing)


def _policy(version: PolicyVersion) -> Policy:
    return Policy(name=version.name, adapter=version.adapter)


def _news(connection: Connection, lease: RunLease, seen: int) -> tuple[list[str], int]:
    """Trials that ended after event `seen`. Raises LeaseLost."""
    hold(connection, lease, lock=False)
    return events.ended_trials(connection, lease.run_id, seen)
