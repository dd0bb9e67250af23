"""The blocking client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self, TypeVar

from sealkit.answers import Answer, Gathered
from sealkit.client.base import BaseClient, Records, span_of
from sealkit.config import RunConfig
from sealkit.errors import Unavailable
from sealkit.reports import Lineage, Pace, Rerun, RunEstimate, RunReport, TrialMaterial
from sealkit.resources import (
    Alias,
    AnswerUpdate,
    AuditEntry,
    Budget,
    CallerInfo,
    Event,
    Load,
    PolicyVersion,
    Run,
    Trial,
    TrialState,
)
from sealkit.rpc import controller_calls as calls
from sealkit.rpc.channel import open_sync_channel
from sealkit.rpc.controller_calls import Call, Page, Watch
from sealkit.rpc.correlation import to_metadata
from sealkit.rpc.status import rpc_errors
from sealkit.types import Prompt, Sampling

T = TypeVar("T")


class SealClient(BaseClient):
    """The blocking client; works in any thread, also under a running event loop."""

    _open_channel = staticmethod(open_sync_channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; calls in other threads end with Cancelled."""
        if "_channel" in self.__dict__:
            self._channel.close()

    def create_run(
        self,
        config: RunConfig | Mapping[str, Any],
        records: Records,
        retention: Records = (),
        *,
        anchors: Records = (),
        display_name: str = "",
        request_id: str | None = None,
    ) -> Run:
        """Starts a run on `records` (in the domain's format). The same `request_id` returns the same run. `retention`
        and `anchors` ({id, prompt}) replace the project's own; anchors only if the config says so
        (`inner_loop.anchors.source = "file"`).

        Raises InvalidConfig and InvalidDataset with every faulty field, UnknownPolicy, RequestIdReused, QuotaExceeded.
        """
        return self._send(
            calls.create_run(
                config, records, retention, anchors=anchors, display_name=display_name, request_id=request_id
            )
        )

    def learn(
        self,
        alias: str,
        documents: Mapping[str, bytes],
        *,
        config: RunConfig | Mapping[str, Any] | None = None,
        retention: Records = (),
        anchors: Records = (),
        request_id: str | None = None,
    ) -> Run:
        """Starts to learn `documents` (bytes by name: plain text, Markdown, HTML, PDF, DOCX) on an alias, from the
        version that it points to. Each document is learned wholly or not at all; `report(run.name).documents` says what
        became of each. A document of a name that the alias knows replaces it if its bytes differ. `config` replaces the
        one that ships; `retention` and `anchors` are as in `create_run`. Runs on one alias take turns.

        Raises InvalidConfig, InvalidDataset, LimitExceeded, RequestIdReused, QuotaExceeded; FailedPrecondition if the
        alias points to a version that was not made of documents, or of those of another domain.
        """
        return self._send(calls.learn(alias, documents, config, retention, anchors=anchors, request_id=request_id))

    def forget(
        self,
        alias: str,
        *documents: str,
        config: RunConfig | Mapping[str, Any] | None = None,
        retention: Records = (),
        anchors: Records = (),
        request_id: str | None = None,
    ) -> Run:
        """Starts to make an alias forget documents, by name or digest: it gets a version that was never trained on
        them, and everything that was stored of them is deleted. The run fails with NOTHING_TO_FORGET if the alias does
        not know one of them. Raises what `learn` raises."""
        return self._send(
            calls.learn(alias, {}, config, retention, anchors=anchors, forget=documents, request_id=request_id)
        )

    def estimate_run(
        self, config: RunConfig | Mapping[str, Any], records: Records, *, anchors: Records = ()
    ) -> RunEstimate:
        """Estimates the cost of such a run from measured rates; starts nothing. Raises what `create_run` raises."""
        return self._send(calls.estimate_run(config, records, anchors))

    def get_run_pace(self, name: str) -> Pace | None:
        """The expected pace of a run, from earlier runs like it; None if there is none.
        `sealkit.pace.Timeline` makes the time left of it. Raises UnknownRun."""
        return self._send(calls.get_run_pace(name))

    def get_run(self, name: str) -> Run:
        """Raises UnknownRun."""
        return self._send(calls.get_run(name))

    def list_runs(self) -> Iterator[Run]:
        """All runs, newest first, one page per call."""
        return self._pages(calls.list_runs)

    def runs_page(self, token: str = "", size: int = 0) -> Page[Run]:
        """One page of `list_runs`, `size` long (0: 50), after the one whose `next_token` this is."""
        return self._send(calls.list_runs(token, size))

    def watch_run(
        self,
        name: str,
        cursor: str = "",
        *,
        latest: int = 0,
        on_wait: Callable[[Unavailable], None] | None = None,
    ) -> Iterator[Event]:
        """The run's events after `cursor` (empty: all) until it has ended; reconnects, and yields no event twice. With
        `latest`, at most 1000, older events than so many are left out, but for those that say where the run is: its
        state, its stage, what it waits for. `on_wait` is called once the controller has not answered for some seconds.
        Raises UnknownRun, InvalidCursor."""
        watch = Watch(name, cursor, self._reconnect_seconds, latest=latest)
        while True:
            call = self._stub.WatchRun(watch.request(), metadata=self._metadata)
            try:
                with rpc_errors(self._peer):
                    for response in call:
                        yield watch.seen(response)
                if watch.done:
                    return
                lost = watch.closed_early(self.get_run(name))
            except Unavailable as error:
                lost = error
            finally:
                call.cancel()
            pause = watch.pause(lost)
            if on_wait and watch.to_be_told():
                on_wait(lost)
            time.sleep(pause)

    def wait(self, name: str) -> Run:
        """The run once it has ended."""
        for _ in self.watch_run(name):
            pass
        return self.get_run(name)

    def cancel_run(self, name: str) -> Run:
        """Raises UnknownRun."""
        return self._send(calls.cancel_run(name))

    def pause_run(self, name: str) -> Run:
        """Starts no more trials; those in progress finish. Raises UnknownRun."""
        return self._send(calls.pause_run(name))

    def resume_run(self, name: str, budget: Budget | None = None) -> Run:
        """Resumes a paused, failed or cancelled run; `budget` replaces the current one. Raises UnknownRun,
        RunNotResumable, ConfigOutdated, BudgetExhausted."""
        return self._send(calls.resume_run(name, budget))

    def retry_trials(self, name: str, names: Sequence[str] = ()) -> tuple[Run, int]:
        """Retries failed trials of the run `name`, all or those of `names`, and resumes the run if it had ended.
        Returns the run and the number of trials. Raises UnknownRun, UnknownTrial, RunNotResumable, ConfigOutdated,
        BudgetExhausted."""
        return self._send(calls.retry_trials(name, names))

    def report(self, name: str) -> RunReport:
        """What the run found so far. Raises UnknownRun."""
        return self._send(calls.report(name))

    def list_trials(self, parent: str, state: TrialState | None = None) -> Iterator[Trial]:
        """Trials of `runs/{id}` or `runs/{id}/rounds/{round}`, all or those in one state, by name, without verdicts,
        one page per call."""
        return self._pages(lambda token: calls.list_trials(parent, token, state))

    def trials_page(self, parent: str, token: str = "", size: int = 0, state: TrialState | None = None) -> Page[Trial]:
        """One page of `list_trials`; see `runs_page`."""
        return self._send(calls.list_trials(parent, token, state, size))

    def get_trial(self, name: str) -> Trial:
        """One trial, with its verdicts. Raises UnknownTrial."""
        return self._send(calls.get_trial(name))

    def get_trial_material(self, name: str) -> TrialMaterial:
        """What a trial was asked and trained on. Raises UnknownTrial; ConfigOutdated if another version stored a config
        that this version cannot read in full."""
        return self._send(calls.get_trial_material(name))

    def rerun_trial(self, name: str, *, request_id: str | None = None) -> Trial:
        """Queues a rerun of a trial from its manifest; returns the new trial (see `get_rerun` for the result). Raises
        UnknownTrial, NotReproducible, ConfigOutdated."""
        return self._send(calls.rerun_trial(name, request_id))

    def get_rerun(self, name: str) -> Rerun:
        """A rerun, by its own name, compared with the recorded trial. Raises UnknownTrial."""
        return self._send(calls.get_rerun(name))

    def wait_rerun(self, name: str, *, poll_seconds: float = 0.5) -> Rerun:
        """The rerun once it has ended. Raises UnknownTrial."""
        while not (rerun := self.get_rerun(name)).trial.state.terminal:
            time.sleep(poll_seconds)
        return rerun

    def list_policies(self) -> Iterator[PolicyVersion]:
        """All policies, newest first, one page per call."""
        return self._pages(calls.list_policies)

    def get_policy(self, name: str) -> PolicyVersion:
        """Raises UnknownPolicy."""
        return self._send(calls.get_policy(name))

    def set_alias(self, name: str, policy: str, *, reason: str = "", request_id: str | None = None) -> Alias:
        """Points `aliases/{id}` to a policy that passed the gate. Raises UnknownPolicy, GateRefused,
        RequestIdReused."""
        return self._send(calls.set_alias(name, policy, reason, request_id))

    def get_alias(self, name: str) -> Alias:
        """One alias with its history. Raises UnknownAlias."""
        return self._send(calls.get_alias(name))

    def list_aliases(self) -> Iterator[Alias]:
        """All aliases by name, one page per call."""
        return self._pages(calls.list_aliases)

    def aliases_page(self, token: str = "", size: int = 0) -> Page[Alias]:
        """One page of `list_aliases`; see `runs_page`."""
        return self._send(calls.list_aliases(token, size))

    def roll_back_alias(self, name: str, *, reason: str = "", request_id: str | None = None) -> Alias:
        """Points an alias to its previous policy. Raises UnknownAlias, NothingToRollBack, RequestIdReused."""
        return self._send(calls.roll_back_alias(name, reason, request_id))

    def get_lineage(self, name: str) -> Lineage:
        """Where a version comes from: of `policies/{id}`, or of the one that `aliases/{id}` points to. Raises
        UnknownAlias, UnknownPolicy."""
        return self._send(calls.get_lineage(name))

    def answer(
        self,
        alias: str,
        prompt: Prompt | str,
        sampling: Sampling = Sampling(),  # noqa: B008 - frozen
        *,
        documents: bool = False,
    ) -> Answer:
        """A whole answer. See `stream_answer`."""
        gathered = Gathered()
        for update in self.stream_answer(alias, prompt, sampling, documents=documents):
            gathered.add(update)
        return gathered.answer

    def stream_answer(
        self,
        alias: str,
        prompt: Prompt | str,
        sampling: Sampling = Sampling(),  # noqa: B008 - frozen
        *,
        documents: bool = False,
    ) -> Iterator[AnswerUpdate]:
        """An answer as it is sampled: who answers, pieces, the end. Closing the iterator ends the decoding.

        `alias`: `aliases/{id}`, or empty for the base model; the policy that it points to now gives the whole answer. A
        conversation's earlier turns are the prompt's `shots`. `documents`: also say, before the end, which documents of
        the alias the answer is about.

        Raises UnknownAlias, PromptTooLong, QueueFull, QuotaExceeded; Unavailable if no evaluator answers, or if it died
        in the middle.
        """
        request = calls.answer_request(alias, prompt, sampling, documents)
        for pause in (*self._RETRY_PAUSES, None):
            call = self._stub.Answer(request, timeout=self._answer_seconds, metadata=self._metadata)
            begun = False
            try:
                with rpc_errors(self._peer):
                    for response in call:
                        begun = True
                        yield calls.answer_update(response)
                return
            except Unavailable:
                if begun or pause is None:
                    raise
                time.sleep(pause)
            finally:
                call.cancel()

    def get_load(self) -> Load:
        """How busy the stack is: the replicas of the model services, and the runs with trials to do."""
        return self._send(calls.get_load())

    def whoami(self) -> CallerInfo:
        """This client's identity at the controller: role, tenant, quotas and their use."""
        return self._send(calls.get_caller())

    def list_audit_entries(self, *, resource: str = "", caller: str = "") -> Iterator[AuditEntry]:
        """The audit log, newest first, one page per call: all of it, or that of one resource or caller. Raises
        PermissionDenied for viewers."""
        return self._pages(lambda token: calls.list_audit_entries(token, resource, caller))

    def _send(self, call: Call[T]) -> T:
        for pause in (*self._RETRY_PAUSES, None):
            try:
                with span_of(call) as place, rpc_errors(self._peer):
                    sent = (*self._metadata, *to_metadata(place))
                    return call.read(call.send(self._stub, timeout=self._timeout, metadata=sent))
            except Unavailable:
                if pause is None:
                    raise
                time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def _pages(self, page: Callable[[str], Call[Page[T]]]) -> Iterator[T]:
        token, more = "", True
        while more:
            found = self._send(page(token))
            yield from found.items
            token, more = found.next_token, bool(found.next_token)
