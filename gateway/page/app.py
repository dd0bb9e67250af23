"""The live page as an ASGI application: its routes, the headers of every response, and errors as pages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api import Api
from gateway.callers import COOKIE, Callers
from gateway.connection import ClientDisconnected, disconnected
from gateway.errors import ApiError, from_http, from_seal, internal
from gateway.page.render import SCRIPT, STYLE, page
from gateway.page.session import Sessions, sign_in_form, target_of
from gateway.page.stream import Events
from gateway.page.views import Views
from gateway.settings import GatewaySettings
from sealkit.errors import SealError

log = structlog.get_logger(__name__)

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    # Not `no-referrer`: the Origin of a form would then be `null`.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_KEPT_SECONDS = 31_536_000
"""Of a file whose address has its digest."""


def make_page(settings: GatewaySettings, callers: Callers, stopping: asyncio.Event) -> ASGIApp:
    """The application, to be mounted. `stopping`: set when the process is to end, which ends the streams of events."""
    views, sessions = Views(callers, settings), Sessions(callers, settings)
    events, api = Events(callers, settings, stopping), Api(settings, callers.of_cookie)
    trial = "/runs/{run}/rounds/{round:int}/trials/{trial}"
    return Starlette(
        routes=[
            Route("/", views.overview, methods=["GET"]),
            Route("/runs/{run}", views.run, methods=["GET"]),
            Route("/runs/{run}/findings", views.findings, methods=["GET"]),
            Route(trial, views.trial, methods=["GET"]),
            Route("/aliases/{alias}", views.alias, methods=["GET"]),
            Route("/events", events.stream, methods=["GET"]),
            Route("/answers", api.chat, methods=["POST"]),
            Route("/session", sessions.sign_in, methods=["POST"]),
            Route("/session/end", sessions.sign_out, methods=["POST"]),
            Route("/live.css", _file(STYLE, "text/css"), methods=["GET"]),
            Route("/live.js", _file(SCRIPT, "text/javascript"), methods=["GET"]),
        ],
        exception_handlers={
            ApiError: _refused,
            SealError: _refused,
            HTTPException: _refused,
            ClientDisconnected: disconnected,
            Exception: _broken,
        },
        middleware=[Middleware(_PageMiddleware)],
    )


class _PageMiddleware:
    """Adds the headers to every response, and refuses what another site's page sends."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        app = self._app
        if scope["method"] == "POST" and not _same_origin(Headers(scope=scope)):
            message = "only this page itself may send that; open it again at the address that its certificate names"
            app = ApiError(403, message, code="origin_not_allowed").response()
        await app(scope, receive, sending)


def _same_origin(headers: Headers) -> bool:
    """Whether a page of this host sent the request. A proxy in front may change the scheme, so that is not compared."""
    host = headers.get("host", "")
    return bool(host) and headers.get("origin", "").partition("://")[2].lower() == host.lower()


async def _refused(request: Request, error: Exception) -> Response:
    """An error as a page; where a script asked, as JSON. Without a token, the form to sign in."""
    if isinstance(error, SealError):
        error = from_seal(error, "prompt")
    if isinstance(error, HTTPException):
        error = from_http(error)
    assert isinstance(error, ApiError)
    log.info("page refused", status=error.status, code=error.code, error=error.message)
    if "text/html" not in request.headers.get("accept", ""):
        return error.response()
    if error.status == 401:
        return sign_in_form(error if COOKIE in request.cookies else None, target_of(request))
    return page("error.html.jinja", error.status, error=error)


async def _broken(request: Request, _: Exception) -> Response:
    return page("error.html.jinja", 500, error=internal(request))


def _file(content: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    """A static file, read once."""

    async def serve(_: Request) -> Response:
        return Response(content, media_type=media_type, headers={"Cache-Control": f"max-age={_KEPT_SECONDS}"})

    return serve
