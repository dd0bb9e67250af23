"""The controller's gRPC service: the one file here that sees protobufs. It only reads and writes the record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from seal.controller.v1 import controller_pb2 as pb
from seal.controller.v1 import controller_pb2_grpc
from sqlalchemy import Connection

from controller.accept import accept
from controller.continual import with_continual
from controller.estimate import estimate_run
from controller.record import aliases, contexts, events, policies, replays, runs, trials
from controller.record.database import Database
from controller.record.rates import rates_for
from controller.replay import compare
from controller.report import build_report
from sealkit.resources import RunReport
from sealkit.rpc.convert import word_from_number
from sealkit.rpc.convert_controller import (
    TRIAL_STATES,
    alias_to_pb,
    budget_from_pb,
    event_to_pb,
    policy_version_to_pb,
    run_to_pb,
    trial_to_pb,
)
from sealkit.rpc.convert_report import replay_to_pb, run_estimate_to_pb, run_report_to_pb
from sealkit.rpc.struct import struct_from_pb

Context = grpc.aio.ServicerContext[Any, Any]

_POLL_SECONDS = 0.5
_BREATH_SECONDS = 0.02
_EVENTS_AT_ONCE = 200


class ControllerService(controller_pb2_grpc.ControllerServiceServicer):
    """See protos/seal/controller/v1/controller.proto for what each call does and which errors it gives."""

    full_names: tuple[str, ...] = ("seal.controller.v1.ControllerService",)

    def __init__(self, database: Database, plugins: tuple[str, ...] = (), outside: tuple[str, ...] = ()) -> None:
        """`plugins` may be named as domains, `outside` editors as arms."""
        self._database = database
        self._plugins = plugins
        self._outside = outside
        self._draining = asyncio.Event()

    # --- sealkit.rpc.server.Service -----------------------------------------------------------------------------------
    def register(self, server: grpc.aio.Server) -> None:
        """Adds the servicer."""
        controller_pb2_grpc.add_ControllerServiceServicer_to_server(self, server)

    async def start(self) -> None:
        """Brings the record to this version's form. Raises Unavailable."""
        await self._database.start()

    async def drain(self) -> None:
        """Ends the watch streams; their clients come back with the cursor."""
        self._draining.set()
        self._database.bell.ring()

    async def close(self) -> None:
        """Closes the record."""
        await self._database.close()

    # --- runs ---------------------------------------------------------------------------------------------------------
    async def CreateRun(self, request: pb.CreateRunRequest, _: Context) -> pb.CreateRunResponse:
        new, contexts = await asyncio.to_thread(
            accept,
            request_id=request.request_id,
            display_name=request.display_name,
            config=struct_from_pb(request.config),
            records=[struct_from_pb(record) for record in request.records],
            retention=[struct_from_pb(record) for record in request.retention],
            plugins=self._plugins,
            outside=self._outside,
        )
        return pb.CreateRunResponse(run=run_to_pb(await self._database.write(runs.create, new, contexts)))

    async def GetRun(self, request: pb.GetRunRequest, _: Context) -> pb.GetRunResponse:
        return pb.GetRunResponse(run=run_to_pb(await self._database.read(runs.get, _id(request.name))))

    async def ListRuns(self, request: pb.ListRunsRequest, _: Context) -> pb.ListRunsResponse:
        page = await self._database.read(runs.page, request.page_size, request.page_token)
        return pb.ListRunsResponse(runs=map(run_to_pb, page.items), next_page_token=page.next_token)

    async def WatchRun(self, request: pb.WatchRunRequest, _: Context) -> AsyncIterator[pb.WatchRunResponse]:
        run_id, cursor = _id(request.name), request.cursor
        while not self._draining.is_set():
            heard = self._database.bell.listen()
            found, ended = await self._database.read(events.after, run_id, cursor, limit=_EVENTS_AT_ONCE)
            for event in found:
                yield pb.WatchRunResponse(event=event_to_pb(event))
                cursor = event.cursor
            if ended:
                return
            if len(found) < _EVENTS_AT_ONCE:
                await self._database.bell.wait(heard, seconds=_POLL_SECONDS)
                await asyncio.sleep(_BREATH_SECONDS)

    async def CancelRun(self, request: pb.CancelRunRequest, _: Context) -> pb.CancelRunResponse:
        run = await self._database.write(runs.cancel, _id(request.name), request.request_id)
        return pb.CancelRunResponse(run=run_to_pb(run))

    async def PauseRun(self, request: pb.PauseRunRequest, _: Context) -> pb.PauseRunResponse:
        run = await self._database.write(runs.pause, _id(request.name), request.request_id)
        return pb.PauseRunResponse(run=run_to_pb(run))

    async def ResumeRun(self, request: pb.ResumeRunRequest, _: Context) -> pb.ResumeRunResponse:
        budget = budget_from_pb(request.budget) if request.HasField("budget") else None
        run = await self._database.write(runs.resume, _id(request.name), request.request_id, budget)
        return pb.ResumeRunResponse(run=run_to_pb(run))

    async def RetryTrials(self, request: pb.RetryTrialsRequest, _: Context) -> pb.RetryTrialsResponse:
        run, retried = await self._database.write(
            runs.retry, _id(request.parent), list(request.names), request.request_id
        )
        return pb.RetryTrialsResponse(run=run_to_pb(run), retried=retried)

    async def GetRunReport(self, request: pb.GetRunReportRequest, _: Context) -> pb.GetRunReportResponse:
        report = await self._database.read(_report, _id(request.name))
        return pb.GetRunReportResponse(report=run_report_to_pb(report))

    async def EstimateRun(self, request: pb.EstimateRunRequest, _: Context) -> pb.EstimateRunResponse:
        new, contexts = await asyncio.to_thread(
            accept,
            request_id="estimate",
            display_name="",
            config=struct_from_pb(request.config),
            records=[struct_from_pb(record) for record in request.records],
            retention=(),
            plugins=self._plugins,
            outside=self._outside,
        )
        rates = await self._database.read(rates_for, new)
        estimate = await asyncio.to_thread(estimate_run, new, contexts, rates, self._plugins)
        return pb.EstimateRunResponse(estimate=run_estimate_to_pb(estimate))

    # --- trials and policies ------------------------------------------------------------------------------------------
    async def ListTrials(self, request: pb.ListTrialsRequest, _: Context) -> pb.ListTrialsResponse:
        state = word_from_number(TRIAL_STATES, request.state) if request.state else None
        page = await self._database.read(
            trials.page, request.parent, request.page_size, request.page_token, state=state
        )
        return pb.ListTrialsResponse(trials=map(trial_to_pb, page.items), next_page_token=page.next_token)

    async def GetTrial(self, request: pb.GetTrialRequest, _: Context) -> pb.GetTrialResponse:
        return pb.GetTrialResponse(trial=trial_to_pb(await self._database.read(trials.get, request.name)))

    async def ReplayTrial(self, request: pb.ReplayTrialRequest, _: Context) -> pb.ReplayTrialResponse:
        trial = await self._database.write(replays.add, request.name, request.request_id)
        return pb.ReplayTrialResponse(trial=trial_to_pb(trial))

    async def GetReplay(self, request: pb.GetReplayRequest, _: Context) -> pb.GetReplayResponse:
        replay, original = await self._database.read(replays.pair, request.name)
        return pb.GetReplayResponse(replay=replay_to_pb(compare(replay, original)))

    async def ListPolicies(self, request: pb.ListPoliciesRequest, _: Context) -> pb.ListPoliciesResponse:
        page = await self._database.read(policies.page, request.page_size, request.page_token)
        return pb.ListPoliciesResponse(policies=map(policy_version_to_pb, page.items), next_page_token=page.next_token)

    async def GetPolicy(self, request: pb.GetPolicyRequest, _: Context) -> pb.GetPolicyResponse:
        policy = await self._database.read(policies.get, request.name)
        return pb.GetPolicyResponse(policy=policy_version_to_pb(policy))

    # --- aliases ------------------------------------------------------------------------------------------------------
    async def SetAlias(self, request: pb.SetAliasRequest, _: Context) -> pb.SetAliasResponse:
        alias = await self._database.write(
            aliases.set_to, _alias(request.name), request.policy, request.reason, request.request_id
        )
        return pb.SetAliasResponse(alias=alias_to_pb(alias))

    async def GetAlias(self, request: pb.GetAliasRequest, _: Context) -> pb.GetAliasResponse:
        return pb.GetAliasResponse(alias=alias_to_pb(await self._database.read(aliases.get, _alias(request.name))))

    async def ListAliases(self, request: pb.ListAliasesRequest, _: Context) -> pb.ListAliasesResponse:
        page = await self._database.read(aliases.page, request.page_size, request.page_token)
        return pb.ListAliasesResponse(aliases=map(alias_to_pb, page.items), next_page_token=page.next_token)

    async def RollBackAlias(self, request: pb.RollBackAliasRequest, _: Context) -> pb.RollBackAliasResponse:
        alias = await self._database.write(aliases.roll_back, _alias(request.name), request.reason, request.request_id)
        return pb.RollBackAliasResponse(alias=alias_to_pb(alias))


def _id(name: str) -> str:
    return name.removeprefix("runs/")


def _alias(name: str) -> str:
    return name.removeprefix("aliases/")


def _report(connection: Connection, run_id: str) -> RunReport:
    run, versions = runs.get(connection, run_id), policies.of_run(connection, run_id)
    report = build_report(run, trials.of_run(connection, run_id), versions)
    if run.config.get("task") != "adapt":
        return report
    learned = [context.context_id for context in contexts.of_split(connection, run_id, "train")]
    return with_continual(report, learned, policies.after_rounds(connection, run_id))
