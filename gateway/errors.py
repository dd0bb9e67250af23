"""Errors in the form of OpenAI's API: https://platform.openai.com/docs/guides/error-codes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from google.rpc import code_pb2
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sealkit import errors
from sealkit.errors import SealError
from sealkit.faults import code_of

_STATUS = {
    code_pb2.INVALID_ARGUMENT: 400,
    code_pb2.FAILED_PRECONDITION: 400,
    code_pb2.UNAUTHENTICATED: 401,
    code_pb2.PERMISSION_DENIED: 403,
    code_pb2.NOT_FOUND: 404,
    code_pb2.RESOURCE_EXHAUSTED: 429,
    code_pb2.UNAVAILABLE: 503,
    code_pb2.DEADLINE_EXCEEDED: 504,
    code_pb2.CANCELLED: 503,
}
"""Status of a controller's code; any other is 500."""
_CODES: dict[type[SealError], str] = {
    errors.Unauthenticated: "invalid_api_key",
    errors.UnknownAlias: "model_not_found",
    errors.PromptTooLong: "context_length_exceeded",
    errors.QuotaExceeded: "insufficient_quota",
}
"""The API's own codes; any other error has its reason in lower case."""
_RETRY_SECONDS = 1.0
_MOST_FIELD = 64


class ApiError(Exception):
    """An error of the API. `param`: the field of the request that is at fault."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        repeatable: bool = True,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after
        self.repeatable = repeatable

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object of the response."""
        kind = "invalid_request_error" if self.status < 500 and self.status != 429 else "server_error"
        if self.status == 429:
            kind = "insufficient_quota" if self.code == "insufficient_quota" else "rate_limit_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        """The response. Retry-After is in whole seconds; `x-should-retry` is what OpenAI's clients look at first."""
        headers = {} if self.repeatable else {"x-should-retry": "false"}
        if self.retry_after is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after)))
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body, self.status, headers)


def model_not_found(model: str) -> ApiError:
    """No model of this name, or none that this caller may see."""
    message = f"The model {model[:_MOST_FIELD]!r} does not exist; GET /v1/models lists those that do"
    return ApiError(404, message, code="model_not_found", param="model")


def from_seal(error: SealError, text_param: str) -> ApiError:
    """An error of the controller. `text_param`: the request's field that holds the text, `messages` or `prompt`."""
    status = 503 if isinstance(error, errors.ModelMismatch) else _STATUS.get(code_of(type(error)), 500)
    code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), error.reason.lower())
    again = error.retry_after if error.retry_after is not None else _RETRY_SECONDS
    return ApiError(
        status,
        error.message,
        code=code,
        param=_param(error, text_param),
        retry_after=again if status in (429, 503) else None,
        # The quota is by day.
        repeatable=not isinstance(error, errors.QuotaExceeded),
    )


def _param(error: SealError, text_param: str) -> str | None:
    if isinstance(error, errors.UnknownAlias):
        return "model"
    if isinstance(error, errors.PromptTooLong):
        return text_param
    if isinstance(error, errors.InvalidInput) and error.fields:
        field = error.fields[0][0].removeprefix("sampling.")
        return text_param if field.startswith("prompt") else field[:_MOST_FIELD]
    return None


def from_http(error: HTTPException) -> ApiError:
    """No such route, or not with this method."""
    return ApiError(error.status_code, error.detail, code="not_found" if error.status_code == 404 else None)


def internal(request: Request) -> ApiError:
    """A bug. Starlette raises it again after the response, and the server logs it."""
    return ApiError(500, f"internal error {request.state.request_id}; see the service's log", code="internal")


def from_validation(error: ValidationError) -> ApiError:
    """A body that is not a request: its first fault."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    param = path_of(first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "is not supported here; leave it out"
    return ApiError(400, f"{param}: {message}" if param else message, param=param or None, code="invalid_value")


def path_of(place: Sequence[int | str]) -> str:
    """A field's place as `messages[0].content`."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in place]
    return re.sub(r"[^\w.\[\]-]", "?", "".join(parts).lstrip("."))[:_MOST_FIELD]
