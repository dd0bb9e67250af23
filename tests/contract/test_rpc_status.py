"""The status table is total, and an error crosses the wire as itself."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from sealkit import errors
from sealkit.errors import SealError
from sealkit.resources import Fault
from sealkit.rpc.status import error_from_status, fault_from_status, fault_of, grpc_code_of, status_of, status_of_fault


def _tree(root: type[SealError] = SealError) -> Iterator[type[SealError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _tree(child)


@pytest.mark.parametrize("error_class", list(_tree()), ids=lambda c: c.__name__)
def test_every_error_comes_back_as_itself(error_class: type[SealError]) -> None:
    sent = error_class("mend it: ä", metadata={"k": "v"}, fields=(("a.b[0]", "bad"),), retry_after=1.25)
    back = error_from_status(status_pb2.Status.FromString(status_of(sent).SerializeToString()))
    assert type(back) is error_class
    assert (back.message, back.metadata, back.fields, back.retry_after) == (
        sent.message,
        sent.metadata,
        sent.fields,
        sent.retry_after,
    )


def test_reasons_are_unique() -> None:
    reasons = [c.reason for c in _tree()]
    assert len(reasons) == len(set(reasons))


def test_only_the_root_is_internal() -> None:
    assert [c for c in _tree() if grpc_code_of(c) is grpc.StatusCode.INTERNAL] == [SealError]


@pytest.mark.parametrize(
    ("error_class", "code"),
    [
        (errors.InvalidDataset, "INVALID_ARGUMENT"),
        (errors.UnknownRun, "NOT_FOUND"),
        (errors.RunNotResumable, "FAILED_PRECONDITION"),
        (errors.RequestIdReused, "ALREADY_EXISTS"),
        (errors.QueueFull, "RESOURCE_EXHAUSTED"),
        (errors.AdapterCorrupt, "DATA_LOSS"),
    ],
)
def test_codes_are_those_the_protos_promise(error_class: type[SealError], code: str) -> None:
    assert grpc_code_of(error_class).name == code


def test_details_are_there_only_where_they_say_something() -> None:
    status = status_of(errors.NotFound("gone"))
    assert [d.TypeName() for d in status.details] == ["google.rpc.ErrorInfo"]
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("NOT_FOUND", "seal")
    assert error_from_status(status).retry_after is None


@pytest.mark.parametrize(
    ("code", "error_class"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.Unavailable),
        (grpc.StatusCode.NOT_FOUND, errors.NotFound),
        (grpc.StatusCode.DATA_LOSS, errors.AdapterCorrupt),
        (grpc.StatusCode.UNIMPLEMENTED, SealError),
    ],
)
def test_a_foreign_status_falls_back_to_its_code(code: grpc.StatusCode, error_class: type[SealError]) -> None:
    foreign = error_details_pb2.ErrorInfo(reason="ADAPTER_NOT_FOUND", domain="someone.else")
    status = status_pb2.Status(code=code.value[0], message="x")
    status.details.add().Pack(foreign)
    assert type(error_from_status(status)) is error_class


def test_a_newer_peers_reason_falls_back_to_its_code() -> None:
    assert type(error_from_status(status_of_fault(Fault(code=5, reason="NOT_YET_INVENTED", message="x")))) is (
        errors.NotFound
    )


def test_very_many_faults_stay_within_what_any_client_reads() -> None:
    fields = tuple((f"records[{i}].context", "must not be empty") for i in range(5000))
    error = errors.InvalidDataset("é" * 20_000, fields=fields)
    status = status_of(error)
    # grpc-message (percent-encoded) and grpc-status-details-bin, against gRPC's default limit of 8 KiB.
    assert len(quote(status.message)) + status.ByteSize() < 8000
    back = error_from_status(status)
    named = len(back.fields) - 1
    assert named > 20
    assert back.fields[-1] == ("...", f"and {5000 - named} more faulty fields")


def test_a_fault_is_recorded_and_comes_back() -> None:
    fault = fault_of(errors.NonFiniteLoss("diverged"))
    assert fault == Fault(code=9, reason="NON_FINITE_LOSS", message="diverged")
    assert fault_from_status(status_of_fault(fault)) == fault
