"""Where a value and its message differ. All else crosses by the names of the fields (`sealkit.rpc.mapping`).

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
    """Both ways of one conversion, each for something that is there."""

    to_pb: Callable[[Any], Any]
    from_pb: Callable[[Any], Any]


MESSAGES: Mapping[type[Value], str] = {
    ModelInfo: "BaseModel",  # the client hands it out, where `model.BaseModel` reads as pydantic's
    Completion: "SampleSelfEditsResponse",  # buf names an rpc's request and response after the rpc
    EvaluationRequest: "EvaluateRequest",  # likewise
    Evaluation: "EvaluateResponse",  # likewise
}
"""The message's name where it is not the value's."""

FIELDS: Mapping[type[Value], Mapping[str, str]] = {
    Completion: {"text": "completion"},  # beside a context's id and an index, `completion` says which text
}
"""The message's field by the value's, where the names differ."""

EMPTY: Mapping[type[Value], str] = {
    AdapterRef: "digest",  # a peer may send an empty AdapterRef for none
}
"""By the value: the field of its message without which an optional one counts as not set."""

ZERO: Mapping[type[StrEnum], StrEnum] = {
    PromptFormat: PromptFormat.AUTO,  # who says nothing about the format leaves it to the tokenizer
    PromptLoss: PromptLoss.NONE,  # the usual case, older than the field
    GateState: GateState.UNMEASURED,  # a controller of 0.1 sets none; from 0.2 on it has a number of its own
}
"""What `…_UNSPECIFIED` means. Any other enum refuses it."""


def _time_to_pb(time: datetime) -> Timestamp:
    """A time without a zone is taken for UTC."""
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
    # The error model of google.rpc, in a resource as in a failed call.
    (Fault, "google.rpc.Status"): Codec(status_of_fault, fault_from_status),
    # A pair has no names.
    (tuple[int, int], "seal.type.v1.Span"): Codec(
        lambda span: training_pb2.Span(start=span[0], end=span[1]), lambda pb: (pb.start, pb.end)
    ),
    # A list of lists needs a message between, and its numbers know no None: NaN stands for it.
    (tuple[float | None, ...], "seal.controller.v1.ContinualRow"): Codec(_row_to_pb, _row_from_pb),
}
"""By the value's type and the message: conversions that are not made by names."""
