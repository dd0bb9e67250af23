"""On whose behalf a request calls the controller: the gateway passes the caller's own token on."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request

from gateway.errors import ApiError
from gateway.settings import GatewaySettings
from sealkit.client import AsyncSealClient

TENANT_HEADER = "seal-tenant"
"""For admins: the tenant to act for, as `seal --tenant`."""
COOKIE = "__Secure-seal-token"
"""Holds a person's token; browsers accept it only over HTTPS."""
_SEND = "send yours as `Authorization: Bearer TOKEN`"
_SIGN_IN = "sign in with yours"


class Callers:
    """`client`: returns the connection to the controller. The methods raise ApiError if a token is missing."""

    def __init__(self, settings: GatewaySettings, client: Callable[[], AsyncSealClient]) -> None:
        self._client = client
        self.needs_token = settings.identity is not None

    def of_header(self, request: Request) -> AsyncSealClient:
        """The controller, called with the request's bearer token: for programs."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        tenant = request.headers.get(TENANT_HEADER, "")
        if not (tenant.isascii() and tenant.isprintable()):
            raise ApiError(400, f"{TENANT_HEADER}: not a tenant's name", param=TENANT_HEADER, code="invalid_value")
        return self.with_token(token if scheme.lower() == "bearer" else "", tenant, advice=_SEND)

    def of_cookie(self, request: Request) -> AsyncSealClient:
        """The controller, called with the token that a person signed in with: for the live page, and only there."""
        return self.with_token(request.cookies.get(COOKIE, ""))

    def with_token(self, token: str, tenant: str = "", *, advice: str = _SIGN_IN) -> AsyncSealClient:
        """The controller, called with this token. `advice`: what to do if there is none, and one is needed."""
        token = token.strip()
        if not (token.isascii() and token.isprintable()):
            token = ""
        if not token and self.needs_token:
            raise ApiError(401, f"no token came with the request; {advice}", code="invalid_api_key")
        return self._client().acting_for(token, tenant)
