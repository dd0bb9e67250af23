"""A controller's API over a record in which tenants have one of everything, and its calls by name."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from typing import Any

import grpc
from buf.validate import validate_pb2
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from seal.controller.v1 import controller_pb2 as pb
from seal.controller.v1 import controller_pb2_grpc
from seal.type.v1 import text_pb2

from controller.accept import accept
from controller.db import aliases, attempts, leases, policies, reruns, runs, trials
from controller.db.attempts import Result
from controller.db.database import Database
from controller.db.trials import Plan
from controller.service import ControllerService
from controller.services import Services
from sealkit.resources import Editor, Fault, GateState, ReplicaState, ServiceReplica, TrialPhase, TrialState
from sealkit.rpc.authority import TENANT_KEY
from sealkit.rpc.channel import open_channel
from sealkit.rpc.server import GrpcServer, ServerSettings
from sealkit.rpc.status import error_from_rpc
from sealkit.rpc.struct import struct_to_pb
from tests.unit.controller.changes import change, operator
from tests.unit.controller.controller_fakes import DOMAIN, RETENTION, FakeServices, manifest, records, tiny_config

METHODS = {method.name: method for method in pb.DESCRIPTOR.services_by_name["ControllerService"].methods}
AWAY = ServiceReplica(
    service="trainer",
    address="10.0.0.7:50052",
    state=ReplicaState.NOT_SERVING,
    error=Fault(code=14, reason="UNAVAILABLE", message="trainer at 10.0.0.7:50052 does not answer"),
)
_numbers = itertools.count()


@dataclass(frozen=True)
class Things:
    """Names of what one tenant has."""

    run: str
    trial: str
    rerun: str
    policy: str
    alias: str

    def as_ghosts(self) -> Things:
        """The same names, of things that never were."""
        return Things(*(getattr(self, field.name).replace("secret", "ghosts") for field in fields(self)))


async def furnish(database: Database, tenant: str, *, request_id: str = "made", alias: str = "secret-notes") -> Things:
    """One of everything for a tenant: what it is called has the word `secret`."""
    config = tiny_config(name=f"secret of {tenant}")
    new, contexts = accept(
        request_id=request_id, display_name="", config=config, records=records(), retention=RETENTION,
        plugins=(DOMAIN,), tenant=tenant,
    )  # fmt: skip
    who = operator(tenant)
    run = await database.write(runs.create, change(f"runs/{new.run_id}", request_id, who), new, contexts)
    await database.write(leases.beat, "worker")
    (lease,) = await database.write(runs.take_free, "worker", ())
    theta = await database.write(policies.begin, lease, start_policy="", base_model="ab" * 32, domain="knowledge")
    theta = await database.write(policies.measured, lease, theta.model_copy(update={"gate": GateState.PASSED}))
    plan = Plan(
        run_id=lease.run_id, round=0, trial_id="c0-0", phase=TrialPhase.E_STEP, editor=Editor.POLICY, context_id="c0",
        index=0, policy=theta.name,
    )  # fmt: skip
    (trial,) = await database.write(trials.add, lease, [plan])
    taken = await database.write(attempts.take, trial, "worker", previous=None, max_deliveries=3)
    assert isinstance(taken, attempts.Taken)
    result = Result(state=TrialState.SUCCEEDED, manifest=manifest())
    await database.write(attempts.finish, taken.lease, result)
    rerun = await database.write(reruns.add, change(trial, f"{request_id} rerun", who))
    await database.write(aliases.set_to, change(f"aliases/{alias}", f"{request_id} alias", who), theta.name, "")
    return Things(run.name, trial, rerun.name, theta.name, f"aliases/{alias}")


@asynccontextmanager
async def harness(database: Database) -> AsyncIterator[str]:
    """The address of the API over this record, without TLS: whoever calls names the tenant to act for. It closes the
    record."""
    fakes = FakeServices()
    fakes.seen = [AWAY]
    service = ControllerService(database, (DOMAIN,), services=Services(*[fakes] * 3))
    server = GrpcServer(service, ServerSettings(listen="127.0.0.1:0"))
    await server.listen()
    await server.start()
    try:
        yield server.address
    finally:
        await server.stop(0)


def request_for(method: str, things: Things) -> Message:
    """A valid request of a method that names these things wherever it names anything. One in parts has one part."""
    descriptor = METHODS[method].input_type
    request: Any = GetMessageClass(descriptor)()
    if METHODS[method].client_streaming:
        request.part.CopyFrom(request_for(method.removesuffix("InParts"), things))
        return request
    for field in descriptor.fields:
        if field.name == "config":
            request.config.CopyFrom(struct_to_pb(tiny_config(start_policy=things.policy), what="config"))
        elif field.name == "records":
            request.records.extend(struct_to_pb(record, what="record") for record in records())
        elif field.name == "prompt":
            request.prompt.user = "Which river?"
        elif field.name == "sampling":
            request.sampling.MergeFrom(text_pb2.Sampling(top_p=1, max_tokens=4))
        elif field.name == "request_id":
            request.request_id = f"request-{next(_numbers)}"
        elif pattern := field.GetOptions().Extensions[validate_pb2.field].string.pattern:
            setattr(request, field.name, _fitting(method, pattern, things))
    return request


def _fitting(method: str, pattern: str, things: Things) -> str:
    order = (things.run, things.rerun if "Rerun" in method else things.trial, things.policy, things.alias)
    return next(name for name in order if re.fullmatch(pattern, name))


@dataclass(frozen=True)
class Answer:
    """What came back: the response (of a stream its first) as text, or the error and its words."""

    code: grpc.StatusCode
    text: str


async def call(address: str, method: str, request: Message, tenant: str) -> Answer:
    """Calls a method, acting for a tenant."""
    async with open_channel(address) as channel:
        ask: Callable[..., Any] = getattr(controller_pb2_grpc.ControllerServiceStub(channel), method)
        sent = iter([request]) if METHODS[method].client_streaming else request
        answer = ask(sent, timeout=20, metadata=((TENANT_KEY, tenant),))
        try:
            response = await (answer.read() if METHODS[method].server_streaming else answer)
        except grpc.aio.AioRpcError as error:
            found = error_from_rpc(error, "controller")
            return Answer(error.code(), f"{found.reason} {found.message} {found.metadata} {found.fields}")
        answer.cancel()
        return Answer(grpc.StatusCode.OK, str(response))
