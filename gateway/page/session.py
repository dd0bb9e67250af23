"""How a person signs in: the token is kept in the browser's cookie and nowhere else (docs/adr/0014)."""

from __future__ import annotations

import re
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from gateway.callers import COOKIE, Callers
from gateway.connection import read_body
from gateway.errors import ApiError, from_seal
from gateway.page.render import ROOT, page
from gateway.settings import GatewaySettings
from sealkit.errors import Unauthenticated

_FORM_BYTES = 8192
_TARGET = re.compile(rf"{ROOT}(?:/[\w./-]*)?(?:\?[\w.=&%-]*)?")


class Sessions:
    """The two routes of a session. Nothing is kept in the process, so any replica serves it."""

    def __init__(self, callers: Callers, settings: GatewaySettings) -> None:
        self._callers = callers
        self._settings = settings

    async def sign_in(self, request: Request) -> Response:
        """`POST /live/session`: a form with `token` and the address to continue at."""
        kind, seconds = "application/x-www-form-urlencoded", self._settings.idle_seconds
        body = await read_body(request, most=_FORM_BYTES, seconds=seconds, kind=kind)
        fields = parse_qs(body.decode("ascii", "replace"))
        token, target = fields.get("token", [""])[0].strip(), fields.get("target", [""])[0]
        target = target if _TARGET.fullmatch(target) else f"{ROOT}/"
        try:
            await self._callers.with_token(token).whoami()
        except (ApiError, Unauthenticated) as error:
            return sign_in_form(from_seal(error, "") if isinstance(error, Unauthenticated) else error, target)
        response = RedirectResponse(target, 303)
        if self._callers.needs_token:
            response.set_cookie(COOKIE, token, path=ROOT, secure=True, httponly=True, samesite="strict")
        return response

    async def sign_out(self, _: Request) -> Response:
        """`POST /live/session/end`."""
        response = RedirectResponse(f"{ROOT}/", 303)
        response.delete_cookie(COOKIE, path=ROOT, secure=True, httponly=True, samesite="strict")
        return response


def sign_in_form(error: ApiError | None, target: str) -> Response:
    """The form that asks for the token; with the error of the last try."""
    return page("sign_in.html.jinja", 401, error=error, target=target)


def target_of(request: Request) -> str:
    """The address of a request, to continue at."""
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")
