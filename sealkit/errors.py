"""The one exception tree. `reason` is stable and machine-readable; the message says what to do; `sealkit.faults`
maps each class to a code in one table."""

from __future__ import annotations

from typing import ClassVar


class SealError(Exception):
    """Base of everything the suite raises on purpose.

    `metadata` (str → str) travels in ErrorInfo; `fields` (path, description) in BadRequest; `retry_after` (seconds)
    in RetryInfo.
    """

    reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        metadata: dict[str, str] | None = None,
        fields: tuple[tuple[str, str], ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = metadata or {}
        self.fields = fields
        self.retry_after = retry_after


# --- the caller's fault: mend the request -----------------------------------------------------------------------------
class InvalidInput(SealError):
    reason = "INVALID_INPUT"


class InvalidConfig(InvalidInput):
    reason = "INVALID_CONFIG"


class InvalidDataset(InvalidInput):
    reason = "INVALID_DATASET"


class InvalidModel(InvalidInput):
    """A path or id that holds no loadable model."""

    reason = "INVALID_MODEL"


class InvalidCursor(InvalidInput):
    reason = "INVALID_CURSOR"


class PromptTooLong(InvalidInput):
    reason = "PROMPT_TOO_LONG"


class ExampleTooLong(InvalidInput):
    reason = "EXAMPLE_TOO_LONG"


class NothingToLearn(InvalidInput):
    """No token of the examples carries loss."""

    reason = "NOTHING_TO_LEARN"


class UnknownTargetModule(InvalidInput):
    reason = "UNKNOWN_TARGET_MODULE"


class LimitExceeded(InvalidInput):
    """A request asks for more than a configured limit; the message names the limit."""

    reason = "LIMIT_EXCEEDED"


class ShapeMismatch(InvalidInput):
    """Parent adapter and requested shape differ."""

    reason = "SHAPE_MISMATCH"


# --- something named is not there -------------------------------------------------------------------------------------
class NotFound(SealError):
    reason = "NOT_FOUND"


class AdapterNotFound(NotFound):
    reason = "ADAPTER_NOT_FOUND"


class UnknownPolicy(NotFound):
    reason = "UNKNOWN_POLICY"


class UnknownRun(NotFound):
    reason = "UNKNOWN_RUN"


class UnknownTrial(NotFound):
    reason = "UNKNOWN_TRIAL"


class UnknownAlias(NotFound):
    reason = "UNKNOWN_ALIAS"


class UnknownTenant(NotFound):
    reason = "UNKNOWN_TENANT"


class UnknownEditor(NotFound):
    reason = "UNKNOWN_EDITOR"


class UnknownJudge(NotFound):
    reason = "UNKNOWN_JUDGE"


class UnknownDomain(NotFound):
    reason = "UNKNOWN_DOMAIN"


# --- the state forbids it ---------------------------------------------------------------------------------------------
class FailedPrecondition(SealError):
    reason = "FAILED_PRECONDITION"


class RunNotResumable(FailedPrecondition):
    reason = "RUN_NOT_RESUMABLE"


class ConfigOutdated(FailedPrecondition):
    """A run's config was stored by another version, and not all of it can be read; the message names the keys."""

    reason = "CONFIG_OUTDATED"


class NotReproducible(FailedPrecondition):
    """What a rerun needs was never recorded, or is gone."""

    reason = "NOT_REPRODUCIBLE"


class BudgetExhausted(FailedPrecondition):
    """The run has spent what it may; the message names which limit and by how much."""

    reason = "BUDGET_EXHAUSTED"


class TooManyUngraded(FailedPrecondition):
    """The judge failed on so many answers that nothing can be said of the trial."""

    reason = "TOO_MANY_UNGRADED"


class GateRefused(FailedPrecondition):
    """A policy that forgot too much, or was never measured, is not published."""

    reason = "GATE_REFUSED"


class NothingToRollBack(FailedPrecondition):
    """An alias has pointed to one policy only."""

    reason = "NOTHING_TO_ROLL_BACK"


class NonFiniteLoss(FailedPrecondition):
    """Training diverged; the job alone fails."""

    reason = "NON_FINITE_LOSS"


class ModelMismatch(FailedPrecondition):
    """Services hold different base models."""

    reason = "MODEL_MISMATCH"


class EndpointDenied(FailedPrecondition):
    """An HTTP endpoint wants a key, or another one."""

    reason = "ENDPOINT_DENIED"


class EndpointRefused(FailedPrecondition):
    """An HTTP endpoint refuses the request as it is; `metadata["status"]` holds its status code."""

    reason = "ENDPOINT_REFUSED"


class Unsupported(FailedPrecondition):
    """The backend or the model cannot do what was asked for."""

    reason = "UNSUPPORTED"


class Unauthenticated(SealError):
    """Nobody knows the caller."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(SealError):
    """The caller is known and may not do that."""

    reason = "PERMISSION_DENIED"


class RequestIdReused(SealError):
    """The same request id came with other content."""

    reason = "REQUEST_ID_REUSED"


# --- not now ----------------------------------------------------------------------------------------------------------
class ResourceExhausted(SealError):
    reason = "RESOURCE_EXHAUSTED"


class QueueFull(ResourceExhausted):
    reason = "QUEUE_FULL"


class QuotaExceeded(ResourceExhausted):
    """The tenant has used up what it may; `fields` name the quota (they travel in QuotaFailure)."""

    reason = "QUOTA_EXCEEDED"


class GpuMemory(ResourceExhausted):
    """The job can never fit in this device's memory."""

    reason = "GPU_MEMORY"


class Unavailable(SealError):
    """A dependency does not answer; the message names it and how to start it."""

    reason = "UNAVAILABLE"


class DeadlineExceeded(SealError):
    reason = "DEADLINE_EXCEEDED"


class Cancelled(SealError):
    reason = "CANCELLED"


class DeliveriesExhausted(SealError):
    """A trial was handed to workers too often and none finished it: a dead letter."""

    reason = "DELIVERIES_EXHAUSTED"


# --- data went bad ----------------------------------------------------------------------------------------------------
class AdapterCorrupt(SealError):
    """Stored weights do not match their digest."""

    reason = "ADAPTER_CORRUPT"


class AdapterMismatch(SealError):
    """The model in memory is not the adapter that was asked for."""

    reason = "ADAPTER_MISMATCH"
