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


# --- the caller's fault: fix the request ------------------------------------------------------------------------------
class InvalidInput(SealError):
    reason = "INVALID_INPUT"


class InvalidConfig(InvalidInput):
    reason = "INVALID_CONFIG"


class InvalidDataset(InvalidInput):
    reason = "INVALID_DATASET"


class InvalidDocument(InvalidInput):
    """A document that cannot be read: damaged, missing, or in another format."""

    reason = "INVALID_DOCUMENT"


class EmptyDocument(InvalidDocument):
    """A document without text."""

    reason = "EMPTY_DOCUMENT"


class DocumentWithoutText(InvalidDocument):
    """A document with pages that have no text: a scan."""

    reason = "DOCUMENT_WITHOUT_TEXT"


class EncryptedDocument(InvalidDocument):
    """A document with a password."""

    reason = "ENCRYPTED_DOCUMENT"


class DuplicateDocument(InvalidDocument):
    """A document that says nothing that the documents before it do not say."""

    reason = "DUPLICATE_DOCUMENT"


class InvalidModel(InvalidInput):
    """A path or id without a loadable model."""

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


# --- something that is named does not exist ---------------------------------------------------------------------------
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
    """Another version stored the run's config, and this version cannot read all of it; the message names the keys."""

    reason = "CONFIG_OUTDATED"


class NotReproducible(FailedPrecondition):
    """Data that a rerun needs was never recorded, or was deleted."""

    reason = "NOT_REPRODUCIBLE"


class BudgetExhausted(FailedPrecondition):
    """The run's budget is used up; the message names the limit and the excess."""

    reason = "BUDGET_EXHAUSTED"


class TooManyUngraded(FailedPrecondition):
    """The judge failed on too many answers to score the trial."""

    reason = "TOO_MANY_UNGRADED"


class OnlyReasoning(FailedPrecondition):
    """The model ended all of its answers inside its reasoning, so there is nothing to judge or to train on."""

    reason = "ONLY_REASONING"


class GateRefused(FailedPrecondition):
    """The gate refused the policy, or never measured it, so it is not published."""

    reason = "GATE_REFUSED"


class NothingToRollBack(FailedPrecondition):
    """The alias has no earlier policy."""

    reason = "NOTHING_TO_ROLL_BACK"


class AliasMoved(FailedPrecondition):
    """Somebody else moved the alias that a run learns on."""

    reason = "ALIAS_MOVED"


class NothingToForget(FailedPrecondition):
    """The alias knows no such document."""

    reason = "NOTHING_TO_FORGET"


class NonFiniteLoss(FailedPrecondition):
    """Training diverged; only this job fails."""

    reason = "NON_FINITE_LOSS"


class ModelMismatch(FailedPrecondition):
    """Services have loaded different base models."""

    reason = "MODEL_MISMATCH"


class EndpointDenied(FailedPrecondition):
    """An HTTP endpoint needs a key, or another one."""

    reason = "ENDPOINT_DENIED"


class EndpointRefused(FailedPrecondition):
    """An HTTP endpoint rejects the request; `metadata["status"]` is its status code."""

    reason = "ENDPOINT_REFUSED"


class Unsupported(FailedPrecondition):
    """The backend or the model cannot do what was asked for."""

    reason = "UNSUPPORTED"


class Unauthenticated(SealError):
    """The caller is unknown."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(SealError):
    """The caller is known but lacks the permission."""

    reason = "PERMISSION_DENIED"


class RequestIdReused(SealError):
    """The request id was already used with other content."""

    reason = "REQUEST_ID_REUSED"


# --- not now ----------------------------------------------------------------------------------------------------------
class ResourceExhausted(SealError):
    reason = "RESOURCE_EXHAUSTED"


class QueueFull(ResourceExhausted):
    reason = "QUEUE_FULL"


class QuotaExceeded(ResourceExhausted):
    """The tenant's quota is used up; `fields` name the quota (sent as QuotaFailure)."""

    reason = "QUOTA_EXCEEDED"


class GpuMemory(ResourceExhausted):
    """The job can never fit in this device's memory."""

    reason = "GPU_MEMORY"


class Unavailable(SealError):
    """A dependency does not answer; the message names it and says how to start it."""

    reason = "UNAVAILABLE"


class DeadlineExceeded(SealError):
    reason = "DEADLINE_EXCEEDED"


class Cancelled(SealError):
    reason = "CANCELLED"


class DeliveriesExhausted(SealError):
    """A trial was delivered to workers too often and none finished it: a dead letter."""

    reason = "DELIVERIES_EXHAUSTED"


# --- corrupt data -----------------------------------------------------------------------------------------------------
class AdapterCorrupt(SealError):
    """Stored weights do not match their digest."""

    reason = "ADAPTER_CORRUPT"


class AdapterMismatch(SealError):
    """The model in memory is not the requested adapter."""

    reason = "ADAPTER_MISMATCH"
