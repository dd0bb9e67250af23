"""The one table from `sealkit.errors` to the codes of google.rpc.Code, and an error as it is recorded."""

from __future__ import annotations

from google.rpc import code_pb2

from sealkit import errors
from sealkit.errors import SealError
from sealkit.resources import Fault

CODES: dict[type[SealError], int] = {
    SealError: code_pb2.INTERNAL,
    errors.InvalidInput: code_pb2.INVALID_ARGUMENT,
    errors.NotFound: code_pb2.NOT_FOUND,
    errors.FailedPrecondition: code_pb2.FAILED_PRECONDITION,
    errors.Unauthenticated: code_pb2.UNAUTHENTICATED,
    errors.PermissionDenied: code_pb2.PERMISSION_DENIED,
    errors.RequestIdReused: code_pb2.ALREADY_EXISTS,
    errors.ResourceExhausted: code_pb2.RESOURCE_EXHAUSTED,
    errors.Unavailable: code_pb2.UNAVAILABLE,
    errors.DeadlineExceeded: code_pb2.DEADLINE_EXCEEDED,
    errors.Cancelled: code_pb2.CANCELLED,
    errors.DeliveriesExhausted: code_pb2.ABORTED,
    errors.AdapterCorrupt: code_pb2.DATA_LOSS,
    errors.AdapterMismatch: code_pb2.DATA_LOSS,
}
"""A class that is not listed has the code of its nearest listed base."""


def code_of(error_class: type[SealError]) -> int:
    """The code of an error class."""
    return next(CODES[base] for base in error_class.__mro__ if base in CODES)


def fault_of(error: BaseException) -> Fault:
    """The error as it is recorded; any other exception is a bug, and recorded as INTERNAL."""
    if isinstance(error, SealError):
        return Fault(code=code_of(type(error)), reason=error.reason, message=error.message)
    return Fault(code=CODES[SealError], reason=SealError.reason, message=f"{type(error).__name__}: {error}")
