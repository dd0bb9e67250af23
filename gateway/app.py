"""The ASGI application: routes, error handlers, and the middleware of every request."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api import Api
from gateway.callers import Callers
from gateway.connection import ClientDisconnected, disconnected
from gateway.errors import ApiError, from_http, internal
from gateway.page.app import make_page
from gateway.page.render import ROOT as PAGE
from gateway.settings import GatewaySettings
from sealkit.client import AsyncSealClient
from sealkit.observability.metrics import HTTP_OPEN, HTTP_REQUESTS, HTTP_SECONDS

log = structlog.get_logger(__name__)

HEALTH = "/healthz"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})


def make_app(settings: GatewaySettings, client: Callable[[], AsyncSealClient], stopping: asyncio.Event) -> ASGIApp:
    """The application. `client`: returns the connection to the controller; `stopping`: set when the process ends."""
    callers = Callers(settings, client)
    api = Api(settings, callers.of_header)
    app = Starlette(
        routes=[
            Route(HEALTH, _healthy, methods=["GET"]),
            Route("/v1/models", api.models, methods=["GET"]),
            Route("/v1/models/{model:path}", api.model, methods=["GET"]),
            Route("/v1/chat/completions", api.chat, methods=["POST"]),
            Route("/v1/completions", api.completions, methods=["POST"]),
            *(Route(path, _to_page, methods=["GET"]) for path in ("/", PAGE)),
            Mount(PAGE, make_page(settings, callers, stopping)),
        ],
        exception_handlers={
            ApiError: _api_error,
            HTTPException: _http_error,
            ClientDisconnected: disconnected,
            Exception: _internal_error,
        },
    )
    return RequestMiddleware(app, settings)


class RequestMiddleware:
    """For every request: its id, the limit on open ones, the Host header, metrics."""

    def __init__(self, app: ASGIApp, settings: GatewaySettings) -> None:
        self._app = app
        self._most = settings.max_requests
        # Without TLS there is no token. A web page whose name was pointed to this machine must not get in. With
        # `plaintext` on another address the service does not know its own names, so it takes any.
        self._hosts = _LOOPBACK if settings.identity is None and settings.local else frozenset()
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        began, status, request_id = time.perf_counter(), 0, uuid.uuid4().hex

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        self._open += 1
        HTTP_OPEN.set(self._open)
        scope.setdefault("state", {})["request_id"] = request_id
        # Bound until the end of the request's task: uvicorn logs what the application raises.
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            refused = self._refused(scope)
            await (refused.response() if refused else self._app)(scope, receive, sending)
        finally:
            self._open -= 1
            HTTP_OPEN.set(self._open)
            route = _route_of(scope)
            HTTP_REQUESTS.labels(route, str(status or 499)).inc()
            HTTP_SECONDS.labels(route).observe(time.perf_counter() - began)

    def _refused(self, scope: Scope) -> ApiError | None:
        if self._open > self._most and scope["path"] != HEALTH:
            message = f"{self._most} requests are being answered, the limit of this service"
            return ApiError(503, message, code="overloaded", retry_after=1)
        host = Request(scope).headers.get("host", "")
        if self._hosts and (host if host.endswith("]") else host.rpartition(":")[0] or host) not in self._hosts:
            return ApiError(403, "without TLS only localhost is a host of this service", code="host_not_allowed")
        return None


def _route_of(scope: Scope) -> str:
    """The route of a request, for metrics: few values, whatever is asked for."""
    route = scope.get("route")
    return f"{scope.get('root_path', '')}{route.path}" if isinstance(route, Route) else "other"


async def _to_page(_: Request) -> Response:
    return RedirectResponse(f"{PAGE}/")


async def _healthy(_: Request) -> Response:
    return PlainTextResponse("ok\n")


async def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    log.info("request refused", status=error.status, code=error.code, error=error.message)
    return error.response()


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = from_http(error).response()
    response.headers.update(error.headers or {})
    return response


async def _internal_error(request: Request, _: Exception) -> Response:
    return internal(request).response()
