"""The controller's calls as values: the method, the request, and how to convert its response.

The blocking and the asyncio client (`sealkit.client`) share them and differ only in how they wait.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from google.protobuf.struct_pb2 import Struct
from pydantic import ValidationError
from seal.controller.v1 import controller_pb2 as pb2
from seal.controller.v1 import resources_pb2 as pb2_resources
from seal.type.v1 import text_pb2

from sealkit import limits
from sealkit.config import RunConfig
from sealkit.errors import InvalidInput, LimitExceeded, Unavailable
from sealkit.learning import learn_config
from sealkit.reports import Lineage, Pace, Rerun, RunEstimate, RunReport, TrialMaterial
from sealkit.resources import (
    Alias,
    AnswerAbout,
    AnswerBegun,
    AnswerUpdate,
    AuditEntry,
    Budget,
    CallerInfo,
    Event,
    Load,
    PolicyVersion,
    Run,
    RunState,
    RunStateChanged,
    Trial,
    TrialState,
)
from sealkit.rpc.mapping import enum_to_pb, from_pb, to_pb
from sealkit.rpc.struct import struct_to_pb
from sealkit.types import AnswerDelta, AnswerEnd, Prompt, Sampling

T = TypeVar("T")

_TRIALS_PAGE = 500
_PART_BYTES = 4 << 20
"""A bigger request is sent in parts of this size: gRPC's own default for the largest message."""


@dataclass(frozen=True)
class Call(Generic[T]):
    """`method` of the stub, its request (sent as a stream of parts if there are any), and how to convert its response.
    Idempotent."""

    method: str
    request: Any
    read: Callable[[Any], T]
    parts: tuple[Any, ...] = ()

    def send(self, stub: Any, *, timeout: float, metadata: Sequence[tuple[str, str]]) -> Any:
        """Starts the call. Each part may take a second more than `timeout`."""
        request = iter(self.parts) if self.parts else self.request
        return getattr(stub, self.method)(request, timeout=timeout + len(self.parts), metadata=metadata)


@dataclass(frozen=True)
class Page(Generic[T]):
    """A page of a list; `next_token` is empty at the end."""

    items: list[T]
    next_token: str


def create_run(
    config: RunConfig | Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    retention: Sequence[Mapping[str, Any]],
    *,
    anchors: Sequence[Mapping[str, Any]] = (),
    documents: Mapping[str, bytes] = MappingProxyType({}),
    display_name: str = "",
    request_id: str | None = None,
) -> Call[Run]:
    """Raises InvalidInput with the path of a value that is not JSON; LimitExceeded if a document is too large."""
    for name, content in documents.items():
        if len(content) > limits.DOCUMENT_BYTES:
            raise LimitExceeded(
                f"{name} is larger than the limit of {limits.DOCUMENT_BYTES >> 20} MiB for a document; split it",
                metadata={"limit": "document_bytes", "allowed": str(limits.DOCUMENT_BYTES), "asked": str(len(content))},
            )
    request = pb2.CreateRunRequest(
        request_id=request_id or uuid.uuid4().hex,
        display_name=display_name,
        config=struct_to_pb(_plain(config), what="config"),
        records=_records_to_pb(records, "records"),
        retention=_records_to_pb(retention, "retention"),
        anchors=_records_to_pb(anchors, "anchors"),
        documents=[pb2.Document(name=name, content=content) for name, content in documents.items()],
    )
    return _maybe_in_parts("CreateRun", request, pb2.CreateRunInPartsRequest, _run)


def learn(
    alias: str,
    documents: Mapping[str, bytes],
    config: RunConfig | Mapping[str, Any] | None,
    retention: Sequence[Mapping[str, Any]],
    *,
    anchors: Sequence[Mapping[str, Any]],
    forget: Sequence[str] = (),
    request_id: str | None,
) -> Call[Run]:
    """A run that learns documents on an alias, or makes it forget some. Raises what `create_run` raises."""
    wanted = learn_config(alias, config, forget=forget)
    return create_run(wanted, (), retention, anchors=anchors, documents=documents, request_id=request_id)


def estimate_run(
    config: RunConfig | Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    anchors: Sequence[Mapping[str, Any]] = (),
) -> Call[RunEstimate]:
    """Raises what `create_run` raises."""
    request = pb2.EstimateRunRequest(
        config=struct_to_pb(_plain(config), what="config"),
        records=_records_to_pb(records, "records"),
        anchors=_records_to_pb(anchors, "anchors"),
    )
    return _maybe_in_parts(
        "EstimateRun", request, pb2.EstimateRunInPartsRequest, lambda r: from_pb(r.estimate, RunEstimate)
    )


def get_run_pace(name: str) -> Call[Pace | None]:
    """The expected pace of a run; None if there is no earlier run like it."""
    request = pb2.GetRunPaceRequest(name=name)
    return Call("GetRunPace", request, lambda r: from_pb(r.pace, Pace) if r.HasField("pace") else None)


def _maybe_in_parts(method: str, request: Any, part: Callable[..., Any], read: Callable[[Any], T]) -> Call[T]:
    """The call with one message, or with a stream of `part` for a request that is too big for one."""
    if request.ByteSize() <= _PART_BYTES:
        return Call(method, request, read)
    return Call(f"{method}InParts", request, read, tuple(part(part=one) for one in _parts(request)))


def _parts(request: Any) -> Iterator[Any]:
    """The request in parts of about `_PART_BYTES`: first all but its lists, then their items in order. An item is never
    divided."""
    lists = {field.name for field, _ in request.ListFields() if field.is_repeated}
    part = type(request)(**{field.name: value for field, value in request.ListFields() if field.name not in lists})
    size = part.ByteSize()
    for name in sorted(lists):
        for item in getattr(request, name):
            if size and size + item.ByteSize() > _PART_BYTES:
                yield part
                part, size = type(request)(), 0
            getattr(part, name).append(item)
            size += item.ByteSize()
    yield part


def get_run(name: str) -> Call[Run]:
    return Call("GetRun", pb2.GetRunRequest(name=name), _run)


def cancel_run(name: str) -> Call[Run]:
    return Call("CancelRun", pb2.CancelRunRequest(name=name, request_id=uuid.uuid4().hex), _run)


def pause_run(name: str) -> Call[Run]:
    return Call("PauseRun", pb2.PauseRunRequest(name=name, request_id=uuid.uuid4().hex), _run)


def resume_run(name: str, budget: Budget | None) -> Call[Run]:
    request = pb2.ResumeRunRequest(
        name=name, request_id=uuid.uuid4().hex, budget=to_pb(budget, pb2_resources.Budget) if budget else None
    )
    return Call("ResumeRun", request, _run)


def retry_trials(name: str, names: Sequence[str]) -> Call[tuple[Run, int]]:
    request = pb2.RetryTrialsRequest(parent=name, names=names, request_id=uuid.uuid4().hex)
    return Call("RetryTrials", request, lambda r: (_run(r), r.retried))


def report(name: str) -> Call[RunReport]:
    return Call("GetRunReport", pb2.GetRunReportRequest(name=name), lambda r: from_pb(r.report, RunReport))


def get_trial(name: str) -> Call[Trial]:
    return Call("GetTrial", pb2.GetTrialRequest(name=name), lambda r: from_pb(r.trial, Trial))


def get_trial_material(name: str) -> Call[TrialMaterial]:
    request = pb2.GetTrialMaterialRequest(name=name)
    return Call("GetTrialMaterial", request, lambda r: from_pb(r.material, TrialMaterial))


def rerun_trial(name: str, request_id: str | None) -> Call[Trial]:
    request = pb2.RerunTrialRequest(name=name, request_id=request_id or uuid.uuid4().hex)
    return Call("RerunTrial", request, lambda r: from_pb(r.trial, Trial))


def get_rerun(name: str) -> Call[Rerun]:
    return Call("GetRerun", pb2.GetRerunRequest(name=name), lambda r: from_pb(r.rerun, Rerun))


def get_policy(name: str) -> Call[PolicyVersion]:
    return Call("GetPolicy", pb2.GetPolicyRequest(name=name), lambda r: from_pb(r.policy, PolicyVersion))


def list_runs(token: str, size: int = 0) -> Call[Page[Run]]:
    def read(response: pb2.ListRunsResponse) -> Page[Run]:
        return Page([from_pb(run, Run) for run in response.runs], response.next_page_token)

    return Call("ListRuns", pb2.ListRunsRequest(page_size=size, page_token=token), read)


def list_trials(parent: str, token: str, state: TrialState | None, size: int = _TRIALS_PAGE) -> Call[Page[Trial]]:
    def read(response: pb2.ListTrialsResponse) -> Page[Trial]:
        return Page([from_pb(trial, Trial) for trial in response.trials], response.next_page_token)

    number = enum_to_pb(state, pb2_resources.TrialState) if state else pb2_resources.TRIAL_STATE_UNSPECIFIED
    request = pb2.ListTrialsRequest(parent=parent, page_size=size, page_token=token, state=number)
    return Call("ListTrials", request, read)


def list_policies(token: str) -> Call[Page[PolicyVersion]]:
    def read(response: pb2.ListPoliciesResponse) -> Page[PolicyVersion]:
        return Page([from_pb(p, PolicyVersion) for p in response.policies], response.next_page_token)

    return Call("ListPolicies", pb2.ListPoliciesRequest(page_token=token), read)


def _records_to_pb(records: Sequence[Mapping[str, Any]], what: str) -> list[Struct]:
    return [struct_to_pb(record, what=f"{what}[{i}]", nan_as_null=True) for i, record in enumerate(records)]


def _plain(config: RunConfig | Mapping[str, Any]) -> Mapping[str, Any]:
    return config.model_dump(mode="json") if isinstance(config, RunConfig) else config


def set_alias(name: str, policy: str, reason: str, request_id: str | None) -> Call[Alias]:
    request = pb2.SetAliasRequest(name=name, policy=policy, reason=reason, request_id=request_id or uuid.uuid4().hex)
    return Call("SetAlias", request, _alias)


def get_alias(name: str) -> Call[Alias]:
    return Call("GetAlias", pb2.GetAliasRequest(name=name), _alias)


def list_aliases(token: str, size: int = 0) -> Call[Page[Alias]]:
    def read(response: pb2.ListAliasesResponse) -> Page[Alias]:
        return Page([from_pb(alias, Alias) for alias in response.aliases], response.next_page_token)

    return Call("ListAliases", pb2.ListAliasesRequest(page_size=size, page_token=token), read)


def roll_back_alias(name: str, reason: str, request_id: str | None) -> Call[Alias]:
    request = pb2.RollBackAliasRequest(name=name, reason=reason, request_id=request_id or uuid.uuid4().hex)
    return Call("RollBackAlias", request, _alias)


def get_lineage(name: str) -> Call[Lineage]:
    return Call("GetLineage", pb2.GetLineageRequest(name=name), lambda r: from_pb(r.lineage, Lineage))


def answer_request(alias: str, prompt: Prompt | str, sampling: Sampling, documents: bool) -> pb2.AnswerRequest:
    """`alias`: `aliases/{id}`, or empty for the base model. Raises InvalidInput on a text that is no prompt."""
    try:
        asked = prompt if isinstance(prompt, Prompt) else Prompt(user=prompt)
    except ValidationError as error:
        why = error.errors(include_url=False)[0]["msg"]
        raise InvalidInput(f"the prompt cannot be sent: {why}", fields=(("prompt.user", why),)) from error
    return pb2.AnswerRequest(
        alias=alias,
        prompt=to_pb(asked, text_pb2.Prompt),
        sampling=to_pb(sampling, text_pb2.Sampling),
        with_documents=documents,
    )


def answer_update(response: pb2.AnswerResponse) -> AnswerUpdate:
    """A message of an answer's stream. Raises InvalidInput on a kind that this version does not know."""
    match response.WhichOneof("update"):
        case "begun":
            return from_pb(response.begun, AnswerBegun)
        case "delta":
            return from_pb(response.delta, AnswerDelta)
        case "about":
            return from_pb(response.about, AnswerAbout)
        case "end":
            return from_pb(response.end, AnswerEnd)
    raise InvalidInput("an answer holds an update that this version of the suite does not know; update it")


def get_load() -> Call[Load]:
    return Call("GetLoad", pb2.GetLoadRequest(), lambda r: from_pb(r.load, Load))


def get_caller() -> Call[CallerInfo]:
    return Call("GetCaller", pb2.GetCallerRequest(), lambda r: from_pb(r.caller, CallerInfo))


def list_audit_entries(token: str, resource: str, caller: str) -> Call[Page[AuditEntry]]:
    def read(response: pb2.ListAuditEntriesResponse) -> Page[AuditEntry]:
        return Page([from_pb(entry, AuditEntry) for entry in response.entries], response.next_page_token)

    request = pb2.ListAuditEntriesRequest(page_token=token, resource=resource, caller=caller)
    return Call("ListAuditEntries", request, read)


def _alias(response: Any) -> Alias:
    return from_pb(response.alias, Alias)


def _run(response: Any) -> Run:
    return from_pb(response.run, Run)


class Watch:
    """The state of a watcher: the cursor to continue from, and whether more events can come."""

    longest_pause = 5.0
    """Longest wait between two attempts, in seconds."""
    told_after = 5.0
    """Seconds after which a watcher is told that the stream is lost."""

    def __init__(self, name: str, cursor: str, reconnect_seconds: float, *, latest: int = 0) -> None:
        self.name = name
        self._cursor, self._latest = cursor, latest
        self._reconnect_seconds = reconnect_seconds
        self._failures = 0
        self._lost_at = 0.0
        self._told = False
        self._last_state: RunState | None = None
        self._run_is_over = False
        self._empty = True

    def request(self) -> pb2.WatchRunRequest:
        """A request for the stream after the last event."""
        self._empty = True
        return pb2.WatchRunRequest(name=self.name, cursor=self._cursor, latest=self._latest)

    def seen(self, response: pb2.WatchRunResponse) -> Event:
        """Converts an event and advances the cursor past it: from now on nothing is left out."""
        event = from_pb(response.event, Event)
        self._cursor, self._latest, self._failures, self._empty = event.cursor, 0, 0, False
        if isinstance(event.kind, RunStateChanged):
            self._last_state = event.kind.state
        return event

    @property
    def done(self) -> bool:
        """Whether a stream that the server closed was the last one: it contained the run's end, or it was empty
        although the run had ended before."""
        ended = self._last_state is not None and self._last_state.terminal
        return ended or (self._run_is_over and self._empty)

    def closed_early(self, run: Run) -> Unavailable:
        """Stores the run's state after the server closed a stream that was not the last."""
        self._run_is_over = run.state.terminal
        return Unavailable(f"the controller keeps closing the stream of {self.name}, before the run's end")

    def pause(self, error: Unavailable) -> float:
        """Seconds to wait before the next attempt: 0.2, doubling to `longest_pause`.

        Raises the error once `reconnect_seconds` have passed since the stream was lost.
        """
        now = time.monotonic()
        if not self._failures:
            self._lost_at, self._told = now, False
        if now - self._lost_at > self._reconnect_seconds:
            raise error
        self._failures += 1
        return float(min(self.longest_pause, 0.1 * 2 ** min(self._failures, 6)))

    def to_be_told(self) -> bool:
        """Whether the stream has been lost for some seconds; True once for each loss."""
        due = not self._told and time.monotonic() - self._lost_at >= self.told_after
        self._told = self._told or due
        return due
