"""Authentication and authorization. A caller is identified by the name in its certificate or by a bearer token. Its
role says what it may do, its tenant what it may see (`controller.db.access`). Without TLS there are no names, and every
caller is an admin: for a single machine only.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sealkit.callers import NOBODY_KNOWN, Caller, Role, reads
from sealkit.errors import InvalidConfig, InvalidInput, PermissionDenied, Unauthenticated, UnknownTenant
from sealkit.resources import Quotas

log = structlog.get_logger(__name__)


TENANT_KEY = "seal-tenant"
"""Metadata key of the tenant that an admin acts for."""
_NOT_FOR_VIEWERS = frozenset({"ListAuditEntries"})
_TENANT = r"[a-z0-9][a-z0-9-]{0,62}"


class Authority(Protocol):
    """Used by the interceptor: first authenticates a caller, then authorizes the call."""

    @property
    def quotas(self) -> Mapping[str, Quotas]:
        """Quotas by tenant; a missing tenant has no limits."""
        ...

    def identify(self, names: Iterable[str], token: str) -> Caller:
        """`names`: the names in the peer's certificate. Raises Unauthenticated, PermissionDenied."""
        ...

    def permit(self, caller: Caller, method: str, tenant: str) -> Caller:
        """The caller as it acts in this call: for `tenant`, if it names one. `method` is `/package.Service/Method`.

        Raises PermissionDenied, UnknownTenant, InvalidInput.
        """
        ...


class Everyone:
    """For one machine, without TLS: every caller is allowed, for any tenant it names."""

    quotas: Mapping[str, Quotas] = {}

    def identify(self, names: Iterable[str], token: str) -> Caller:  # noqa: ARG002
        """Anybody."""
        return NOBODY_KNOWN

    def permit(self, caller: Caller, method: str, tenant: str) -> Caller:  # noqa: ARG002
        """Allows every call. Raises InvalidInput on an invalid tenant name."""
        if tenant and not re.fullmatch(_TENANT, tenant):
            raise InvalidInput(f"{TENANT_KEY} {tenant!r} is not a tenant's name: use lower-case letters, digits and -")
        return replace(caller, tenant=tenant)


@dataclass(frozen=True, slots=True)
class Peers:
    """Allows certificates with these names; for services that only the controller calls."""

    allowed: frozenset[str]

    @property
    def quotas(self) -> Mapping[str, Quotas]:
        """Empty: these services have no tenants."""
        return {}

    def identify(self, names: Iterable[str], token: str) -> Caller:  # noqa: ARG002
        """One of the allowed names."""
        found = list(names)
        for name in found:
            if name in self.allowed:
                return Caller(name, Role.ADMIN)
        shown = ", ".join(found) or "no name"
        raise PermissionDenied(f"a certificate of {shown} may not call here; {', '.join(sorted(self.allowed))} may")

    def permit(self, caller: Caller, method: str, tenant: str) -> Caller:  # noqa: ARG002
        """Anything."""
        return caller


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    role: Literal["viewer", "operator", "admin"]
    tenant: str = Field("", pattern=f"^({_TENANT})?$")
    certificate: str = ""
    token_sha256: str = Field("", pattern=r"^([0-9a-f]{64})?$")

    @model_validator(mode="after")
    def _whole(self) -> _Entry:
        if not (self.certificate or self.token_sha256):
            raise ValueError("a caller needs a certificate's name or a token's SHA-256")
        if self.role != "admin" and not self.tenant:
            raise ValueError("a viewer or operator needs a tenant")
        return self


class _Tenant(Quotas):
    name: str = Field(pattern=f"^{_TENANT}$")


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    caller: tuple[_Entry, ...] = Field(min_length=1)
    tenant: tuple[_Tenant, ...] = ()

    @model_validator(mode="after")
    def _once(self) -> _File:
        names = [tenant.name for tenant in self.tenant]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"tenant {', '.join(twice)} comes more than once")
        return self

    @property
    def quotas(self) -> dict[str, Quotas]:
        return {t.name: Quotas(**t.model_dump(exclude={"name"})) for t in self.tenant}

    @property
    def tenants(self) -> set[str]:
        return {entry.tenant for entry in self.caller} | {tenant.name for tenant in self.tenant}


class CallersFile:
    """The callers of a TOML file; reloaded when it changes. While the file is invalid the old list stays in force.

    [[caller]]
    name = "nightly"            # in logs and the audit
    role = "operator"           # viewer, operator or admin
    tenant = "team-a"           # not for admins
    certificate = "nightly"     # common name or DNS name of its certificate, or
    token_sha256 = "…"          # SHA-256, in hexadecimal digits, of its bearer token

    [[tenant]]                  # only for a tenant with quotas; each may be left out: no limit
    name = "team-a"
    runs_at_once = 2
    trials_in_run = 500
    device_seconds_a_day = 36000
    highest_priority = 3
    """

    def __init__(self, path: Path) -> None:
        """Raises InvalidConfig if the file is missing or invalid."""
        self._path = path
        self._seen = self._stamp()
        self._read = read_callers(path)

    @property
    def quotas(self) -> Mapping[str, Quotas]:
        """The quotas in the current file."""
        return self._current().quotas

    def identify(self, names: Iterable[str], token: str) -> Caller:
        """A caller that the file lists. A call with a token is the token's, whatever the certificate: a process that
        passes on its callers' tokens never acts under its own name for one whose token is unknown."""
        found = list(names)
        digest = hashlib.sha256(token.encode()).hexdigest() if token else ""
        for entry in self._current().caller:
            by_token = bool(digest) and hmac.compare_digest(entry.token_sha256, digest)
            by_name = not digest and bool(entry.certificate) and entry.certificate in found
            if by_token or by_name:
                return Caller(entry.name, Role[entry.role.upper()], "" if entry.role == "admin" else entry.tenant)
        given = f"a certificate of {', '.join(found)}" if found else "no certificate"
        raise Unauthenticated(
            f"not a known caller: {given}{' and an unknown token' if token else ''}; the operator lists callers in "
            "SEAL_CONTROLLER_CALLERS_FILE"
        )

    def permit(self, caller: Caller, method: str, tenant: str) -> Caller:
        """Allows what the role allows, for the caller's own tenant; for an admin, any tenant in the file."""
        action = method.rpartition("/")[2]
        if caller.role < Role.OPERATOR and (not reads(action) or action in _NOT_FOR_VIEWERS):
            raise PermissionDenied(f"{caller.name} is a viewer and may not call {action}; ask for the role operator")
        if tenant in ("", caller.tenant):
            return caller
        if caller.role < Role.ADMIN:
            raise PermissionDenied(f"{caller.name} belongs to {caller.tenant} and may not act for another tenant")
        if tenant not in self._current().tenants:
            raise UnknownTenant(f"no tenant {tenant!r} is in the callers file", metadata={"tenant": tenant})
        return replace(caller, tenant=tenant)

    def _current(self) -> _File:
        try:
            if (now := self._stamp()) != self._seen:
                self._read, self._seen = read_callers(self._path), now
                log.info("callers reloaded", callers=len(self._read.caller))
        except InvalidConfig as error:
            log.error("callers not reloaded", message=error.message)
        return self._read

    def _stamp(self) -> tuple[int, ...]:
        try:
            found = self._path.stat()
        except OSError as error:
            raise InvalidConfig(f"callers file {self._path}: {error.strerror}") from error
        return found.st_mtime_ns, found.st_ino, found.st_size


def read_callers(path: Path) -> _File:
    """The parsed file. Raises InvalidConfig with the faults."""
    try:
        return _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InvalidConfig(f"callers file {path}: {faults}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidConfig(f"callers file {path} cannot be read: {error}") from error


def names_in(context: Mapping[str, Iterable[bytes]]) -> list[str]:
    """The names of a peer's certificate, from gRPC's auth context: common name and DNS names. None without TLS."""
    keys = ("x509_common_name", "x509_subject_alternative_name")
    return list(dict.fromkeys(name.decode(errors="replace") for key in keys for name in context.get(key, ())))
