"""Conversion between the errors of `sealkit.errors` and the rich gRPC Status.

A Status holds one ErrorInfo{reason, domain "seal", metadata}, BadRequest for faulty fields (QuotaFailure for used up
quotas), RetryInfo if waiting helps (google.rpc error model, AIP-193).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast
from urllib.parse import quote

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from sealkit import errors
from sealkit.errors import SealError
from sealkit.faults import CODES, code_of, fault_of
from sealkit.resources import Fault

DOMAIN = "seal"

_GRPC_CODES = {code.value[0]: code for code in grpc.StatusCode}

# gRPC clients reject trailers above 8 KiB by default; the message is in them twice.
_MESSAGE_BYTES = 1200
_TRAILER_BYTES = 7000


def grpc_code_of(error_class: type[SealError]) -> grpc.StatusCode:
    """The gRPC code of an error class."""
    return _GRPC_CODES[code_of(error_class)]


def status_of(error: SealError) -> status_pb2.Status:
    """The rich Status of an error, small enough for any gRPC client: with very many faulty fields, the last violation
    gives the number of omitted ones."""
    status = status_of_fault(fault_of(error), error.metadata)
    status.message = _clip(status.message)
    if error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(error.retry_after * 1000))
        _attach(status, retry)
    if error.fields:
        if isinstance(error, errors.QuotaExceeded):
            _attach(status, _quota_failure(error.fields))
        else:
            room = _TRAILER_BYTES - status.ByteSize() - len(quote(status.message))
            _attach(status, _bad_request(error.fields, room))
    return status


def status_of_fault(fault: Fault, metadata: dict[str, str] | None = None) -> status_pb2.Status:
    """A recorded error as a Status."""
    status = status_pb2.Status(code=fault.code, message=fault.message)
    _attach(status, error_details_pb2.ErrorInfo(reason=fault.reason, domain=DOMAIN, metadata=metadata or {}))
    return status


def fault_from_status(status: status_pb2.Status) -> Fault:
    """A Status as a recorded error; the reason is empty if the Status has no ErrorInfo of ours."""
    return Fault(code=status.code, reason=_error_info(status).reason, message=status.message)


def error_from_status(status: status_pb2.Status) -> SealError:
    """The error of a Status: its class by reason, or by code if the reason is unknown."""
    info, bad_request, retry = _error_info(status), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    quota, has_retry = error_details_pb2.QuotaFailure(), False
    for detail in status.details:
        detail.Unpack(bad_request)
        detail.Unpack(quota)
        has_retry = detail.Unpack(retry) or has_retry
    error_class = _by_reason().get(info.reason) or _BY_CODE.get(status.code, SealError)
    return error_class(
        status.message,
        metadata=dict(info.metadata),
        fields=(
            *((v.field, v.description) for v in bad_request.field_violations),
            *((v.subject, v.description) for v in quota.violations),
        ),
        retry_after=retry.retry_delay.ToTimedelta().total_seconds() if has_retry else None,
    )


def error_from_rpc(error: grpc.Call | grpc.aio.AioRpcError, peer: str) -> SealError:
    """The error of a failed call to `peer` (service and address, for the message)."""
    status = rpc_status.from_call(cast(grpc.Call, error))
    if status is not None:
        return error_from_status(status)
    code, details = error.code(), error.details() or ""
    message = {
        grpc.StatusCode.UNAVAILABLE: f"{peer} {_no_answer(details)}",
        grpc.StatusCode.DEADLINE_EXCEEDED: f"{peer} did not answer within the deadline",
        grpc.StatusCode.UNIMPLEMENTED: f"{peer} does not have this method; is it the right service? ({details})",
    }.get(code, f"{peer}: {details or code.name}")
    if "message larger than max" in details:
        message = f"{peer}: {details}; raise MAX_MESSAGE_MIB of both services (SEAL_CONTROLLER_MAX_MESSAGE_MIB, say)"
    return error_from_status(status_pb2.Status(code=code.value[0], message=message))


_SETTINGS = "SEAL_TLS_CA, SEAL_TLS_CERT and SEAL_TLS_KEY (in a service SEAL_CONTROLLER_TLS_CA and so on)"
_NO_ANSWERS = {
    "WRONG_VERSION_NUMBER": f"does not use TLS, and this side does: unset {_SETTINGS}, or give that service a "
    "certificate",
    "is not in peer certificate": "has a certificate that does not cover this name: call it by a name in it, or add "
    "the name with `seal certs make --host NAME`",
    "andshake failed": "and this side do not trust each other's certificates: both must be signed by the authority in "
    "SEAL_TLS_CA and be valid today",
    "Socket closed": f"closes the connection at once: if it uses TLS, or wants a client certificate, set {_SETTINGS}",
    "http1.x server": "is an HTTP server and not a gRPC service; is it the port of the metrics or of an engine?",
    "errors resolving": "cannot be found: there is no such host",
}
"""What gRPC says of a connection that failed, and what it means."""


def _no_answer(details: str) -> str:
    """Why a peer does not answer, what to do, and gRPC's own words."""
    meaning = next(
        (meaning for said, meaning in _NO_ANSWERS.items() if said in details), "does not answer; is it running?"
    )
    return f"{meaning} ({details.rpartition('last error: ')[2]})"


@contextmanager
def rpc_errors(peer: str) -> Iterator[None]:
    """Converts a failed call's RpcError, sync or async, to its SealError."""
    try:
        yield
    except grpc.RpcError as error:
        if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
            raise
        raise error_from_rpc(error, peer) from error


_BY_CODE: dict[int, type[SealError]] = {code: cls for cls, code in reversed(CODES.items())}


def _by_reason() -> dict[str, type[SealError]]:
    """Every error class by its reason. Computed at each call: a plug-in may define more classes."""
    found: dict[str, type[SealError]] = {}
    waiting = [SealError]
    while waiting:
        error_class = waiting.pop()
        found.setdefault(error_class.reason, error_class)
        waiting.extend(error_class.__subclasses__())
    return found


def _attach(status: status_pb2.Status, detail: Message) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)


def _error_info(status: status_pb2.Status) -> error_details_pb2.ErrorInfo:
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info) and info.domain == DOMAIN:
            return info
    return error_details_pb2.ErrorInfo()


def _bad_request(fields: tuple[tuple[str, str], ...], room: int) -> error_details_pb2.BadRequest:
    """The violations that fit into `room` bytes; usually all."""
    bad_request = error_details_pb2.BadRequest()
    for done, (path, description) in enumerate(fields):
        if bad_request.ByteSize() + len(path.encode()) + len(description.encode()) > room:
            left = len(fields) - done
            bad_request.field_violations.add(field="...", description=f"and {left} more faulty fields")
            break
        bad_request.field_violations.add(field=path, description=description)
    return bad_request


def _quota_failure(fields: tuple[tuple[str, str], ...]) -> error_details_pb2.QuotaFailure:
    violation = error_details_pb2.QuotaFailure.Violation
    return error_details_pb2.QuotaFailure(violations=[violation(subject=s, description=d) for s, d in fields])


def _clip(text: str) -> str:
    raw = text.encode()
    return text if len(raw) <= _MESSAGE_BYTES else raw[: _MESSAGE_BYTES - 3].decode(errors="ignore") + "..."
