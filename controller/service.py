"""The controller's gRPC service: the only file of this package that uses protobufs. It only reads and writes the
database, and passes on the answers of evaluators."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import asdict
from typing import Any, Concatenate, ParamSpec, TypeVar

import grpc
import structlog
from google.protobuf.message import Message
from seal.controller.v1 import controller_pb2 as pb
from seal.controller.v1 import controller_pb2_grpc
from seal.controller.v1 import resources_pb2 as res
from seal.type.v1 import answer_pb2
from sqlalchemy import Connection

from controller.accept import accept
from controller.answer import Answers
from controller.db import aliases, audit, contexts, events, policies, quotas, reruns, runs, trials
from controller.db.access import AccessScope, ChangeRequest
from controller.db.database import Database
from controller.db.documents import NewDocument
from controller.db.load import run_loads
from controller.db.rates import driven_before, rates_for, scored_like
from controller.load import ServiceLoad
from controller.report.continual import with_continual
from controller.report.documents import Learning, document_reports, learning, with_continual_of_documents
from controller.report.estimate import estimate_run, expected_pace
from controller.report.lineage import lineage, origin
from controller.report.material import material_of, stored_material
from controller.report.run import build_report
from controller.services import Services
from controller.trial.rerun import compare
from sealkit.callers import CALLER, reads
from sealkit.config import RunConfig
from sealkit.domains.base import Context as DomainContext
from sealkit.errors import LimitExceeded, SealError, Unavailable
from sealkit.names import id_of, run_name
from sealkit.reports import RunReport
from sealkit.resources import AnswerAbout, AnswerBegun, AnswerUpdate, Budget, CallerInfo, Load, Quotas, TrialState
from sealkit.rpc.interceptors import check
from sealkit.rpc.mapping import enum_from_pb, from_pb, to_pb
from sealkit.rpc.struct import struct_from_pb
from sealkit.types import AnswerDelta, AnswerEnd, Prompt, Sampling

log = structlog.get_logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
P = ParamSpec("P")
T = TypeVar("T")
M = TypeVar("M", bound=Message)

_POLL_SECONDS = 0.5
_COLLECT_SECONDS = 0.02
_EVENTS_AT_ONCE = 200
_NAME = r"[A-Za-z0-9._/-]{1,128}|[a-z]+/[A-Za-z0-9._/-]{1,290}"


class ControllerService(controller_pb2_grpc.ControllerServiceServicer):
    """See protos/seal/controller/v1/controller.proto for each call and its errors."""

    full_names: tuple[str, ...] = ("seal.controller.v1.ControllerService",)

    def __init__(
        self,
        database: Database,
        plugins: tuple[str, ...] = (),
        outside: tuple[str, ...] = (),
        quotas: Callable[[], Mapping[str, Quotas]] = dict,
        max_dataset_mib: int = 1024,
        *,
        services: Services,
    ) -> None:
        """`plugins`: allowed as domains; `outside`: editors allowed as arms; `quotas`: returns the tenants' current
        quotas; `max_dataset_mib`: most of a request in parts; `services`: the evaluator
        gives the answers of aliases; all are asked how busy they are."""
        self._database = database
        self._answers = Answers(database, services.evaluator, plugins)
        self._load = ServiceLoad(services)
        self._quotas = quotas
        self._stored_quotas: dict[str, Quotas] | None = None
        self._plugins = plugins
        self._outside = outside
        self._max_dataset_mib = max_dataset_mib
        self._draining = asyncio.Event()

    # --- sealkit.rpc.server.Service -----------------------------------------------------------------------------------
    def register(self, server: grpc.aio.Server) -> None:
        """Adds the servicer."""
        controller_pb2_grpc.add_ControllerServiceServicer_to_server(self, server)

    async def start(self) -> None:
        """Migrates the database. Raises Unavailable."""
        await self._database.start()

    async def drain(self) -> None:
        """Ends the watch streams; their clients reconnect with the cursor. Asks the services no more."""
        self._draining.set()
        self._database.notifier.notify()
        await self._load.close()

    async def close(self) -> None:
        """Closes the database."""
        await self._database.close()

    # --- sealkit.rpc.interceptors.Remembers ---------------------------------------------------------------------------
    async def refused(self, method: str, request: Message, error: SealError) -> None:
        """Enters a change that was refused in the audit log; logs it if the database is unavailable."""
        action = method.rpartition("/")[2].removesuffix("InParts")
        if reads(action) or isinstance(error, Unavailable):
            return
        request = getattr(request, "part", request)
        change = _change_request(
            action, _named(request, "name") or _named(request, "parent"), _named(request, "request_id")
        )
        try:
            await self._database.write(audit.enter_refusal, change, error)
        except Unavailable as unavailable:
            log.error(
                "refusal not in the audit log", **asdict(change), reason=error.reason, message=unavailable.message
            )

    async def _change(
        self,
        work: Callable[Concatenate[Connection, ChangeRequest, P], T],
        change: ChangeRequest,
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Makes a change on behalf of the caller; it is entered in the audit log in the same transaction."""
        await self._store_quotas()
        return await self._database.write(work, change, *args, **kwargs)

    async def _store_quotas(self) -> None:
        """Before what is checked against them."""
        if (quotas_now := dict(self._quotas())) != self._stored_quotas:
            await self._database.write(quotas.replace, quotas_now)
            self._stored_quotas = quotas_now

    # --- runs ---------------------------------------------------------------------------------------------------------
    async def CreateRun(self, request: pb.CreateRunRequest, _: Context) -> pb.CreateRunResponse:
        new, contexts = await self._accepted(request)
        change = _change_request("CreateRun", run_name(new.run_id), request.request_id)
        run = await self._change(runs.create, change, new, contexts)
        return pb.CreateRunResponse(run=to_pb(run, res.Run))

    async def CreateRunInParts(
        self, requests: AsyncIterator[pb.CreateRunInPartsRequest], context: Context
    ) -> pb.CreateRunInPartsResponse:
        whole = await self._merged(requests, pb.CreateRunRequest())
        return pb.CreateRunInPartsResponse(run=(await self.CreateRun(whole, context)).run)

    async def EstimateRunInParts(
        self, requests: AsyncIterator[pb.EstimateRunInPartsRequest], context: Context
    ) -> pb.EstimateRunInPartsResponse:
        whole = await self._merged(requests, pb.EstimateRunRequest())
        return pb.EstimateRunInPartsResponse(estimate=(await self.EstimateRun(whole, context)).estimate)

    async def _merged(self, requests: AsyncIterator[Any], whole: M) -> M:
        """The parts of a request, merged into `whole` and checked. Raises LimitExceeded, InvalidInput."""
        size = 0
        async for request in requests:
            size += request.part.ByteSize()
            if size > self._max_dataset_mib << 20:
                raise LimitExceeded(
                    f"the dataset has more than {self._max_dataset_mib} MiB; use fewer records (dataset.limit), or "
                    "raise SEAL_CONTROLLER_MAX_DATASET_MIB",
                    metadata={"limit": "max_dataset_mib", "allowed": str(self._max_dataset_mib)},
                )
            whole.MergeFrom(request.part)
        await asyncio.to_thread(check, whole)
        return whole

    async def GetRun(self, request: pb.GetRunRequest, _: Context) -> pb.GetRunResponse:
        run = await self._database.read(runs.get, _scope(), id_of(request.name))
        return pb.GetRunResponse(run=to_pb(run, res.Run))

    async def ListRuns(self, request: pb.ListRunsRequest, _: Context) -> pb.ListRunsResponse:
        page = await self._database.read(runs.page, _scope(), request.page_size, request.page_token)
        return pb.ListRunsResponse(runs=[to_pb(run, res.Run) for run in page.items], next_page_token=page.next_token)

    async def WatchRun(self, request: pb.WatchRunRequest, _: Context) -> AsyncIterator[pb.WatchRunResponse]:
        run_id, cursor, latest = id_of(request.name), request.cursor, request.latest
        while not self._draining.is_set():
            heard = self._database.notifier.subscribe()
            found, ended = await self._database.read(
                events.after, _scope(), run_id, cursor, limit=_EVENTS_AT_ONCE, latest=latest
            )
            latest = 0
            for event in found:
                yield pb.WatchRunResponse(event=to_pb(event, res.Event))
                cursor = event.cursor
            if ended:
                return
            if len(found) < _EVENTS_AT_ONCE:
                await self._database.notifier.wait(heard, seconds=_POLL_SECONDS)
                await asyncio.sleep(_COLLECT_SECONDS)

    async def CancelRun(self, request: pb.CancelRunRequest, _: Context) -> pb.CancelRunResponse:
        run = await self._change(runs.cancel, _change_request("CancelRun", request.name, request.request_id))
        return pb.CancelRunResponse(run=to_pb(run, res.Run))

    async def PauseRun(self, request: pb.PauseRunRequest, _: Context) -> pb.PauseRunResponse:
        run = await self._change(runs.pause, _change_request("PauseRun", request.name, request.request_id))
        return pb.PauseRunResponse(run=to_pb(run, res.Run))

    async def ResumeRun(self, request: pb.ResumeRunRequest, _: Context) -> pb.ResumeRunResponse:
        budget = from_pb(request.budget, Budget) if request.HasField("budget") else None
        run = await self._change(runs.resume, _change_request("ResumeRun", request.name, request.request_id), budget)
        return pb.ResumeRunResponse(run=to_pb(run, res.Run))

    async def RetryTrials(self, request: pb.RetryTrialsRequest, _: Context) -> pb.RetryTrialsResponse:
        change = _change_request("RetryTrials", request.parent, request.request_id)
        run, retried = await self._change(runs.retry, change, list(request.names))
        return pb.RetryTrialsResponse(run=to_pb(run, res.Run), retried=retried)

    async def GetRunReport(self, request: pb.GetRunReportRequest, _: Context) -> pb.GetRunReportResponse:
        report, config, learning = await self._database.read_apart(_report, _scope(), id_of(request.name))
        if learning is not None:
            documents = await asyncio.to_thread(document_reports, learning, config, self._plugins)
            report = report.changed(documents=documents)
        return pb.GetRunReportResponse(report=to_pb(report, res.RunReport))

    async def EstimateRun(self, request: pb.EstimateRunRequest, _: Context) -> pb.EstimateRunResponse:
        asked = pb.CreateRunRequest(
            request_id="estimate", config=request.config, records=request.records, anchors=request.anchors
        )
        new, contexts = await self._accepted(asked)
        rates = await self._database.read(rates_for, _scope(), new)
        scored = await self._database.read(scored_like, _scope(), new)
        estimate = await asyncio.to_thread(estimate_run, new, contexts, rates, self._plugins, scored)
        return pb.EstimateRunResponse(estimate=to_pb(estimate, res.RunEstimate))

    async def GetRunPace(self, request: pb.GetRunPaceRequest, _: Context) -> pb.GetRunPaceResponse:
        config, earlier = await self._database.read(driven_before, _scope(), id_of(request.name))
        pace = expected_pace(config, earlier)
        return pb.GetRunPaceResponse(pace=to_pb(pace, res.Pace) if pace else None)

    async def _accepted(self, request: pb.CreateRunRequest) -> tuple[runs.NewRun, list[DomainContext]]:
        """Runs in a thread, because a big dataset takes seconds."""
        tenant = _scope().home

        def work() -> tuple[runs.NewRun, list[DomainContext]]:
            return accept(
                request_id=request.request_id,
                display_name=request.display_name,
                config=struct_from_pb(request.config),
                records=[struct_from_pb(record, nan_as_null=True) for record in request.records],
                retention=[struct_from_pb(record, nan_as_null=True) for record in request.retention],
                anchors=[struct_from_pb(record, nan_as_null=True) for record in request.anchors],
                documents=[NewDocument(name=one.name, content=one.content) for one in request.documents],
                plugins=self._plugins,
                outside=self._outside,
                tenant=tenant,
            )

        return await asyncio.to_thread(work)

    # --- trials and policies ------------------------------------------------------------------------------------------
    async def ListTrials(self, request: pb.ListTrialsRequest, _: Context) -> pb.ListTrialsResponse:
        state = enum_from_pb(request.state, TrialState, res.TrialState) if request.state else None
        page = await self._database.read(
            trials.page, _scope(), request.parent, request.page_size, request.page_token, state=state
        )
        return pb.ListTrialsResponse(
            trials=[to_pb(trial, res.Trial) for trial in page.items], next_page_token=page.next_token
        )

    async def GetTrial(self, request: pb.GetTrialRequest, _: Context) -> pb.GetTrialResponse:
        return pb.GetTrialResponse(
            trial=to_pb(await self._database.read(trials.get, _scope(), request.name), res.Trial)
        )

    async def GetTrialMaterial(self, request: pb.GetTrialMaterialRequest, _: Context) -> pb.GetTrialMaterialResponse:
        stored = await self._database.read(stored_material, _scope(), request.name)
        material = await asyncio.to_thread(material_of, stored, self._plugins)
        return pb.GetTrialMaterialResponse(material=to_pb(material, res.TrialMaterial))

    async def RerunTrial(self, request: pb.RerunTrialRequest, _: Context) -> pb.RerunTrialResponse:
        trial = await self._change(reruns.add, _change_request("RerunTrial", request.name, request.request_id))
        return pb.RerunTrialResponse(trial=to_pb(trial, res.Trial))

    async def GetRerun(self, request: pb.GetRerunRequest, _: Context) -> pb.GetRerunResponse:
        rerun, original = await self._database.read(reruns.pair, _scope(), request.name)
        return pb.GetRerunResponse(rerun=to_pb(compare(rerun, original), res.Rerun))

    async def ListPolicies(self, request: pb.ListPoliciesRequest, _: Context) -> pb.ListPoliciesResponse:
        page = await self._database.read(policies.page, _scope(), request.page_size, request.page_token)
        return pb.ListPoliciesResponse(
            policies=[to_pb(policy, res.PolicyVersion) for policy in page.items], next_page_token=page.next_token
        )

    async def GetPolicy(self, request: pb.GetPolicyRequest, _: Context) -> pb.GetPolicyResponse:
        policy = await self._database.read(policies.get, _scope(), request.name)
        return pb.GetPolicyResponse(policy=to_pb(policy, res.PolicyVersion))

    # --- aliases ------------------------------------------------------------------------------------------------------
    async def SetAlias(self, request: pb.SetAliasRequest, _: Context) -> pb.SetAliasResponse:
        change = _change_request("SetAlias", request.name, request.request_id)
        alias = await self._change(aliases.set_to, change, request.policy, request.reason)
        return pb.SetAliasResponse(alias=to_pb(alias, res.Alias))

    async def GetAlias(self, request: pb.GetAliasRequest, _: Context) -> pb.GetAliasResponse:
        alias = await self._database.read(aliases.get, _scope(), id_of(request.name))
        return pb.GetAliasResponse(alias=to_pb(alias, res.Alias))

    async def ListAliases(self, request: pb.ListAliasesRequest, _: Context) -> pb.ListAliasesResponse:
        page = await self._database.read(aliases.page, _scope(), request.page_size, request.page_token)
        return pb.ListAliasesResponse(
            aliases=[to_pb(alias, res.Alias) for alias in page.items], next_page_token=page.next_token
        )

    async def RollBackAlias(self, request: pb.RollBackAliasRequest, _: Context) -> pb.RollBackAliasResponse:
        change = _change_request("RollBackAlias", request.name, request.request_id)
        alias = await self._change(aliases.roll_back, change, request.reason)
        return pb.RollBackAliasResponse(alias=to_pb(alias, res.Alias))

    async def GetLineage(self, request: pb.GetLineageRequest, _: Context) -> pb.GetLineageResponse:
        found = await self._database.read(origin, _scope(), request.name)
        shown = await asyncio.to_thread(lineage, found, self._plugins)
        return pb.GetLineageResponse(lineage=to_pb(shown, res.Lineage))

    async def Answer(self, request: pb.AnswerRequest, _: Context) -> AsyncIterator[pb.AnswerResponse]:
        await self._store_quotas()
        asked = from_pb(request.prompt, Prompt), from_pb(request.sampling, Sampling)
        stream = self._answers.stream(_scope(), request.alias, *asked, with_documents=request.with_documents)
        async with aclosing(stream) as updates:
            async for update in updates:
                yield _answer_update(update)

    async def GetLoad(self, _request: pb.GetLoadRequest, _: Context) -> pb.GetLoadResponse:
        scope = _scope()
        replicas = await self._load.replicas(whole=scope.tenant is None)
        load = Load(replicas=replicas, runs=tuple(await self._database.read(run_loads, scope)))
        return pb.GetLoadResponse(load=to_pb(load, res.Load))

    # --- callers ------------------------------------------------------------------------------------------------------
    async def GetCaller(self, _request: pb.GetCallerRequest, _: Context) -> pb.GetCallerResponse:
        caller = CALLER.get()
        allowed = self._quotas().get(caller.tenant, Quotas())
        used = await self._database.read(quotas.used, caller.tenant) if caller.tenant else Quotas()
        role = caller.role.name.lower()
        info = CallerInfo(name=caller.name, role=role, tenant=caller.tenant, quotas=allowed, used=used)
        return pb.GetCallerResponse(caller=to_pb(info, res.CallerInfo))

    async def ListAuditEntries(self, request: pb.ListAuditEntriesRequest, _: Context) -> pb.ListAuditEntriesResponse:
        page = await self._database.read(
            audit.page,
            _scope(),
            request.page_size,
            request.page_token,
            resource=request.resource,
            caller=request.caller,
        )
        return pb.ListAuditEntriesResponse(
            entries=[to_pb(entry, res.AuditEntry) for entry in page.items], next_page_token=page.next_token
        )


def _answer_update(update: AnswerUpdate) -> pb.AnswerResponse:
    match update:
        case AnswerBegun():
            return pb.AnswerResponse(begun=to_pb(update, pb.AnswerBegun))
        case AnswerDelta():
            return pb.AnswerResponse(delta=to_pb(update, answer_pb2.AnswerDelta))
        case AnswerAbout():
            return pb.AnswerResponse(about=to_pb(update, pb.AnswerAbout))
        case AnswerEnd():
            return pb.AnswerResponse(end=to_pb(update, answer_pb2.AnswerEnd))


def _scope() -> AccessScope:
    """The access scope of the current call's caller."""
    return AccessScope.of(CALLER.get())


def _change_request(action: str, resource: str, request_id: str) -> ChangeRequest:
    return ChangeRequest(CALLER.get(), action, resource, request_id)


def _named(request: Message, field: str) -> str:
    """A field of a request (which may be invalid), if it could be a resource name."""
    value = getattr(request, field, "")
    return value if isinstance(value, str) and re.fullmatch(_NAME, value) else ""


def _report(connection: Connection, scope: AccessScope, run_id: str) -> tuple[RunReport, RunConfig, Learning | None]:
    """The report of a run, its config, and what it learned of documents, if it does."""
    run = runs.get(connection, scope, run_id)
    config = runs.stored_config(connection, run_id).config
    report = build_report(run, trials.of_run(connection, run_id), policies.of_run(connection, run_id), config.cost)
    if config.task != "adapt":
        return report, config, None
    after_rounds, found = policies.after_rounds(connection, run_id), learning(connection, run_id)
    if found is None:
        learned = [context.context_id for context in contexts.of_split(connection, run_id, "train")]
        return with_continual(report, learned, after_rounds), config, None
    if not config.adapt.forget:
        report = with_continual_of_documents(report, found, after_rounds)
    return report, config, found
