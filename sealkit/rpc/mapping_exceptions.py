"""Differences between values and their messages. All else is converted by field names (`sealkit.rpc.mapping`).

A difference that is not listed here is a TypeError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from math import isnan, nan
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from seal.controller.v1 import resources_pb2
from seal.type.v1 import training_pb2

from sealkit.resources import Fault, GateState
from sealkit.rpc.status import fault_from_status, status_of_fault
from sealkit.types import (
    AdapterRef,
    Completion,
    Evaluation,
    EvaluationRequest,
    ModelInfo,
    PromptFormat,
    PromptLoss,
    Value,
)


@dataclass(frozen=True)
class Codec:
    """Both directions of one conversion, of something that is set."""

    to_pb: Callable[[Any], Any]
    from_pb: Callable[[Any], Any]


MESSAGES: Mapping[type[Value], str] = {
    ModelInfo: "BaseModel",  # `BaseModel` would be confused with pydantic's
    Completion: "SampleSelfEditsResponse",  # buf names an rpc's request and response after the rpc
    EvaluationRequest: "EvaluateRequest",  # likewise
    Evaluation: "EvaluateResponse",  # likewise
}
"""Names of message types that differ from the value's class name."""

FIELDS: Mapping[type[Value], Mapping[str, str]] = {
    Completion: {"text": "completion"},  # `completion` says which text it is
}
"""By value class: its field names to the message's, if they differ."""

EMPTY: Mapping[type[Value], str] = {
    AdapterRef: "digest",  # a peer may send an empty AdapterRef for none
}
"""By value class: the field of its message that an optional value needs to count as set."""

ZERO: Mapping[type[StrEnum], StrEnum] = {
    PromptFormat: PromptFormat.AUTO,  # unset means: the tokenizer decides
    PromptLoss: PromptLoss.NONE,  # the usual case; older than the field
    GateState: GateState.UNMEASURED,  # a controller of 0.1 sets none; from 0.2 on it has a number of its own
}
"""Meaning of `…_UNSPECIFIED`. Other enums refuse it."""


def _time_to_pb(time: datetime) -> Timestamp:
    """A time without a zone is read as UTC."""
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp


def _row_to_pb(row: tuple[float | None, ...]) -> resources_pb2.ContinualRow:
    return resources_pb2.ContinualRow(accuracies=[nan if accuracy is None else accuracy for accuracy in row])


def _row_from_pb(row: resources_pb2.ContinualRow) -> tuple[float | None, ...]:
    return tuple(None if isnan(accuracy) else accuracy for accuracy in row.accuracies)


CODECS: Mapping[tuple[Any, str], Codec] = {
    # Python's own type; to the microsecond, in UTC.
    (datetime, "google.protobuf.Timestamp"): Codec(_time_to_pb, lambda pb: pb.ToDatetime(tzinfo=UTC)),
    # The error model of google.rpc, as in a failed call.
    (Fault, "google.rpc.Status"): Codec(status_of_fault, fault_from_status),
    # A pair has no field names.
    (tuple[int, int], "seal.type.v1.Span"): Codec(
        lambda span: training_pb2.Span(start=span[0], end=span[1]), lambda pb: (pb.start, pb.end)
    ),
    # A list of lists needs a message in between, and its numbers cannot be None: NaN is None.
    (tuple[float | None, ...], "seal.controller.v1.ContinualRow"): Codec(_row_to_pb, _row_from_pb),
}
"""By value type and message type: conversions that do not go by field names."""
