"""The asyncio client: the methods of the blocking one, whose docstrings describe them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from copy import copy
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
from sealkit.rpc.authority import TENANT_KEY
from sealkit.rpc.channel import open_channel
from sealkit.rpc.controller_calls import Call, Page, Watch
from sealkit.rpc.correlation import to_metadata
from sealkit.rpc.status import rpc_errors
from sealkit.types import Prompt, Sampling

T = TypeVar("T")


class AsyncSealClient(BaseClient):
    """The asyncio client; belongs to the event loop of its first call. Methods are those of `SealClient`."""

    _open_channel = staticmethod(open_channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection; calls under way are cancelled."""
        if "_channel" in self.__dict__:
            await self._channel.close()

    async def create_run(
        self,
        config: RunConfig | Mapping[str, Any],
        records: Records,
        retention: Records = (),
        *,
        anchors: Records = (),
        display_name: str = "",
        request_id: str | None = None,
    ) -> Run:
        """See `SealClient.create_run`."""
        return await self._send(
            calls.create_run(
                config, records, retention, anchors=anchors, display_name=display_name, request_id=request_id
            )
        )

    async def learn(
        self,
        alias: str,
        documents: Mapping[str, bytes],
        *,
        config: RunConfig | Mapping[str, Any] | None = None,
        retention: Records = (),
        anchors: Records = (),
        request_id: str | None = None,
    ) -> Run:
        """See `SealClient.learn`."""
        return await self._send(
            calls.learn(alias, documents, config, retention, anchors=anchors, request_id=request_id)
        )

    async def forget(
        self,
        alias: str,
        *documents: str,
        config: RunConfig | Mapping[str, Any] | None = None,
        retention: Records = (),
        anchors: Records = (),
        request_id: str | None = None,
    ) -> Run:
        """See `SealClient.forget`."""
        return await self._send(
            calls.learn(alias, {}, config, retention, anchors=anchors, forget=documents, request_id=request_id)
        )

    async def estimate_run(
        self, config: RunConfig | Mapping[str, Any], records: Records, *, anchors: Records = ()
    ) -> RunEstimate:
        """See `SealClient.estimate_run`."""
        return await self._send(calls.estimate_run(config, records, anchors))

    async def get_run_pace(self, name: str) -> Pace | None:
        """See `SealClient.get_run_pace`."""
        return await self._send(calls.get_run_pace(name))

    async def get_run(self, name: str) -> Run:
        """Raises UnknownRun."""
        return await self._send(calls.get_run(name))

    def list_runs(self) -> AsyncIterator[Run]:
        """All runs, newest first, one page per call."""
        return self._pages(calls.list_runs)

    async def runs_page(self, token: str = "", size: int = 0) -> Page[Run]:
        """See `SealClient.runs_page`."""
        return await self._send(calls.list_runs(token, size))

    async def watch_run(
        self,
        name: str,
        cursor: str = "",
        *,
        latest: int = 0,
        on_wait: Callable[[Unavailable], None] | None = None,
    ) -> AsyncGenerator[Event, None]:
        """See `SealClient.watch_run`."""
        watch = Watch(name, cursor, self._reconnect_seconds, latest=latest)
        while True:
            call = self._stub.WatchRun(watch.request(), metadata=self._metadata)
            try:
                with rpc_errors(self._peer):
                    async for response in call:
                        yield watch.seen(response)
                if watch.done:
                    return
                lost = watch.closed_early(await self.get_run(name))
            except Unavailable as error:
                lost = error
            finally:
                call.cancel()
            pause = watch.pause(lost)
            if on_wait and watch.to_be_told():
                on_wait(lost)
            await asyncio.sleep(pause)

    async def wait(self, name: str) -> Run:
        """The run once it has ended."""
        async for _ in self.watch_run(name):
            pass
        return await self.get_run(name)

    async def cancel_run(self, name: str) -> Run:
        """Raises UnknownRun."""
        return await self._send(calls.cancel_run(name))

    async def pause_run(self, name: str) -> Run:
        """See `SealClient.pause_run`."""
        return await self._send(calls.pause_run(name))

    async def resume_run(self, name: str, budget: Budget | None = None) -> Run:
        """See `SealClient.resume_run`."""
        return await self._send(calls.resume_run(name, budget))

    async def retry_trials(self, name: str, names: Sequence[str] = ()) -> tuple[Run, int]:
        """See `SealClient.retry_trials`."""
        return await self._send(calls.retry_trials(name, names))

    async def report(self, name: str) -> RunReport:
        """What the run found so far. Raises UnknownRun."""
        return await self._send(calls.report(name))

    def list_trials(self, parent: str, state: TrialState | None = None) -> AsyncIterator[Trial]:
        """See `SealClient.list_trials`."""
        return self._pages(lambda token: calls.list_trials(parent, token, state))

    async def trials_page(
        self, parent: str, token: str = "", size: int = 0, state: TrialState | None = None
    ) -> Page[Trial]:
        """See `SealClient.trials_page`."""
        return await self._send(calls.list_trials(parent, token, state, size))

    async def get_trial(self, name: str) -> Trial:
        """One trial, with its verdicts. Raises UnknownTrial."""
        return await self._send(calls.get_trial(name))

    async def get_trial_material(self, name: str) -> TrialMaterial:
        """See `SealClient.get_trial_material`."""
        return await self._send(calls.get_trial_material(name))

    async def rerun_trial(self, name: str, *, request_id: str | None = None) -> Trial:
        """See `SealClient.rerun_trial`."""
        return await self._send(calls.rerun_trial(name, request_id))

    async def get_rerun(self, name: str) -> Rerun:
        """Raises UnknownTrial."""
        return await self._send(calls.get_rerun(name))

    async def wait_rerun(self, name: str, *, poll_seconds: float = 0.5) -> Rerun:
        """See `SealClient.wait_rerun`."""
        rerun = await self.get_rerun(name)
        while not rerun.trial.state.terminal:
            await asyncio.sleep(poll_seconds)
            rerun = await self.get_rerun(name)
        return rerun

    def list_policies(self) -> AsyncIterator[PolicyVersion]:
        """All policies, newest first, one page per call."""
        return self._pages(calls.list_policies)

    async def get_policy(self, name: str) -> PolicyVersion:
        """Raises UnknownPolicy."""
        return await self._send(calls.get_policy(name))

    async def set_alias(self, name: str, policy: str, *, reason: str = "", request_id: str | None = None) -> Alias:
        return await self._send(calls.set_alias(name, policy, reason, request_id))

    async def get_alias(self, name: str) -> Alias:
        return await self._send(calls.get_alias(name))

    def list_aliases(self) -> AsyncIterator[Alias]:
        return self._pages(calls.list_aliases)

    async def aliases_page(self, token: str = "", size: int = 0) -> Page[Alias]:
        """See `SealClient.aliases_page`."""
        return await self._send(calls.list_aliases(token, size))

    async def roll_back_alias(self, name: str, *, reason: str = "", request_id: str | None = None) -> Alias:
        return await self._send(calls.roll_back_alias(name, reason, request_id))

    async def get_lineage(self, name: str) -> Lineage:
        """See `SealClient.get_lineage`."""
        return await self._send(calls.get_lineage(name))

    async def answer(
        self,
        alias: str,
        prompt: Prompt | str,
        sampling: Sampling = Sampling(),  # noqa: B008 - frozen
        *,
        documents: bool = False,
    ) -> Answer:
        """See `SealClient.answer`."""
        gathered = Gathered()
        async with aclosing(self.stream_answer(alias, prompt, sampling, documents=documents)) as updates:
            async for update in updates:
                gathered.add(update)
        return gathered.answer

    async def stream_answer(
        self,
        alias: str,
        prompt: Prompt | str,
        sampling: Sampling = Sampling(),  # noqa: B008 - frozen
        *,
        documents: bool = False,
    ) -> AsyncGenerator[AnswerUpdate, None]:
        """See `SealClient.stream_answer`."""
        request = calls.answer_request(alias, prompt, sampling, documents)
        for pause in (*self._RETRY_PAUSES, None):
            call = self._stub.Answer(request, timeout=self._answer_seconds, metadata=self._metadata)
            begun = False
            try:
                with rpc_errors(self._peer):
                    async for response in call:
                        begun = True
                        yield calls.answer_update(response)
                return
            except Unavailable:
                if begun or pause is None:
                    raise
                await asyncio.sleep(pause)
            finally:
                call.cancel()

    def acting_for(self, token: str, tenant: str = "") -> AsyncSealClient:
        """A client of the same connection that calls with another bearer token, and as an admin for another tenant. The
        connection is this client's: close only that. Without TLS the token is not sent."""
        other = copy(self)
        vars(other).update(_channel=self._channel, _stub=self._stub)
        sent = (("authorization", f"Bearer {token}"),) if token and self._identity else ()
        other._metadata = (*sent, *(((TENANT_KEY, tenant),) if tenant else ()))
        return other

    async def get_load(self) -> Load:
        """See `SealClient.get_load`."""
        return await self._send(calls.get_load())

    async def whoami(self) -> CallerInfo:
        """See `SealClient.whoami`."""
        return await self._send(calls.get_caller())

    def list_audit_entries(self, *, resource: str = "", caller: str = "") -> AsyncIterator[AuditEntry]:
        """See `SealClient.list_audit_entries`."""
        return self._pages(lambda token: calls.list_audit_entries(token, resource, caller))

    async def _send(self, call: Call[T]) -> T:
        for pause in (*self._RETRY_PAUSES, None):
            try:
                with span_of(call) as place, rpc_errors(self._peer):
                    sent = (*self._metadata, *to_metadata(place))
                    return call.read(await call.send(self._stub, timeout=self._timeout, metadata=sent))
            except Unavailable:
                if pause is None:
                    raise
                await asyncio.sleep(pause)
        raise AssertionError("the last try returns or raises")

    async def _pages(self, page: Callable[[str], Call[Page[T]]]) -> AsyncIterator[T]:
        token, more = "", True
        while more:
            found = await self._send(page(token))
            for item in found.items:
                yield item
            token, more = found.next_token, bool(found.next_token)
