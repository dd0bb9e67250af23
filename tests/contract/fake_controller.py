"""A controller small enough to read: enough of the service to see what the bootstrap and the clients do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from seal.controller.v1 import controller_pb2 as pb2
from seal.controller.v1 import controller_pb2_grpc
from seal.controller.v1 import resources_pb2 as res

from sealkit.errors import RunNotResumable, Unavailable, UnknownRun

FULL_NAME = "seal.controller.v1.ControllerService"


class Panic(BaseException):
    """Like a panic of a library in Rust: no Exception."""


class FakeController(controller_pb2_grpc.ControllerServiceServicer):
    """Runs by request id, and scripted event streams. An event's cursor is its place in `events`."""

    full_names = (FULL_NAME,)

    def __init__(self) -> None:
        self.started, self.closed = asyncio.Event(), False
        self.runs: dict[str, res.Run] = {}
        self.requests: list[Any] = []
        self.parts: list[int] = []
        """Bytes of the parts that requests came in."""
        self.events: list[res.Event] = []
        self.breaks: list[tuple[int, bool]] = []
        """After how many events each of the next streams ends, and whether it is closed cleanly or breaks."""
        self.entered, self.release, self.cancelled = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def register(self, server: grpc.aio.Server) -> None:
        controller_pb2_grpc.add_ControllerServiceServicer_to_server(self, server)

    async def start(self) -> None:
        self.started.set()

    async def close(self) -> None:
        self.closed = True

    def happens(self, *states: res.RunState.ValueType) -> None:
        """Adds a change of state each."""
        for state in states:
            event = res.Event(cursor=str(len(self.events) + 1), run_state_changed=res.RunStateChanged(state=state))
            self.events.append(event)

    async def CreateRun(self, request: pb2.CreateRunRequest, context: Any) -> pb2.CreateRunResponse:
        self.requests.append(request)
        new = res.Run(name=f"runs/r{len(self.runs)}", state=res.RUN_STATE_QUEUED, config=request.config)
        return pb2.CreateRunResponse(run=self.runs.setdefault(request.request_id, new))

    async def CreateRunInParts(
        self, requests: AsyncIterator[pb2.CreateRunInPartsRequest], context: Any
    ) -> pb2.CreateRunInPartsResponse:
        whole = pb2.CreateRunRequest()
        async for request in requests:
            self.parts.append(request.part.ByteSize())
            whole.MergeFrom(request.part)
        return pb2.CreateRunInPartsResponse(run=(await self.CreateRun(whole, context)).run)

    async def GetRun(self, request: pb2.GetRunRequest, context: Any) -> pb2.GetRunResponse:
        if request.name == "runs/unknown":
            raise UnknownRun("no run runs/unknown; `seal runs` lists them", metadata={"name": request.name})
        state = self.events[-1].run_state_changed.state if self.events else res.RUN_STATE_RUNNING
        return pb2.GetRunResponse(run=res.Run(name=request.name, state=state))

    async def WatchRun(self, request: pb2.WatchRunRequest, context: Any) -> AsyncIterator[pb2.WatchRunResponse]:
        self.requests.append(request)
        start = int(request.cursor or 0)
        length, clean = self.breaks.pop(0) if self.breaks else (len(self.events), True)
        for event in self.events[start : start + length]:
            yield pb2.WatchRunResponse(event=event)
        if not clean:
            raise Unavailable("the stream broke")

    async def ListTrials(self, request: pb2.ListTrialsRequest, context: Any) -> pb2.ListTrialsResponse:
        number = int(request.page_token or 0)
        trial = res.Trial(
            name=f"{request.parent}/rounds/0/trials/{number}",
            state=res.TRIAL_STATE_QUEUED,
            phase=res.TRIAL_PHASE_E_STEP,
            editor="policy",
        )
        return pb2.ListTrialsResponse(trials=[trial], next_page_token=str(number + 1) if number < 2 else "")

    async def ResumeRun(self, request: pb2.ResumeRunRequest, context: Any) -> pb2.ResumeRunResponse:
        raise RunNotResumable("runs/x has succeeded")

    async def CancelRun(self, request: pb2.CancelRunRequest, context: Any) -> pb2.CancelRunResponse:
        """Waits until it is released, or cancelled."""
        self.entered.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return pb2.CancelRunResponse(run=res.Run(name=request.name, state=res.RUN_STATE_CANCELLED))

    async def GetPolicy(self, request: pb2.GetPolicyRequest, context: Any) -> pb2.GetPolicyResponse:
        if request.name == "policies/panic":
            raise Panic("called unwrap on None")
        raise KeyError("a password")

    async def GetRunReport(self, request: pb2.GetRunReportRequest, context: Any) -> pb2.GetRunReportResponse:
        return pb2.GetRunReportResponse(report=res.RunReport(verdict="too early to say"))

    async def ListRuns(self, request: pb2.ListRunsRequest, context: Any) -> pb2.ListRunsResponse:
        return pb2.ListRunsResponse(runs=self.runs.values())

    async def ListPolicies(self, request: pb2.ListPoliciesRequest, context: Any) -> pb2.ListPoliciesResponse:
        return pb2.ListPoliciesResponse(policies=[res.PolicyVersion(name="policies/base")])
