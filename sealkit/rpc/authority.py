"""Who may call what. A caller is known by the name in its certificate, or by a bearer token; its role says what it may
do. Its tenant is known, but THE RECORD DOES NOT YET KEEP TENANTS APART: whoever is let in sees every run. Without TLS
there are no names, and everybody is let in: that is for one machine.
"""

from __future__ import annotations

import hashlib
import hmac
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Literal, Protocol

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sealkit.errors import InvalidConfig, PermissionDenied, Unauthenticated

log = structlog.get_logger(__name__)


class Role(IntEnum):
    """Each may do what those before it may."""

    VIEWER = 1
    """Reads."""
    OPERATOR = 2
    """Starts, stops, publishes."""
    ADMIN = 3
    """Belongs to no tenant."""


_READS = ("Get", "List", "Watch", "Estimate", "Check")


@dataclass(frozen=True, slots=True)
class Caller:
    """`tenant` is empty for admins. Nothing is kept apart by it yet."""

    name: str
    role: Role
    tenant: str = ""


NOBODY_KNOWN = Caller("anonymous", Role.ADMIN)
"""Without TLS."""
CALLER: ContextVar[Caller] = ContextVar("caller", default=NOBODY_KNOWN)
"""Whose call is being handled."""


class Authority(Protocol):
    """Decides at the door."""

    def admit(self, method: str, names: Iterable[str], token: str) -> Caller:
        """`method` is `/package.Service/Method`, `names` those of the peer's certificate.

        Raises Unauthenticated, PermissionDenied.
        """
        ...


class Everyone:
    """For one machine, without TLS."""

    def admit(self, method: str, names: Iterable[str], token: str) -> Caller:  # noqa: ARG002
        """Anybody."""
        return NOBODY_KNOWN


@dataclass(frozen=True, slots=True)
class Peers:
    """Certificates of these names; for services that only the controller calls."""

    allowed: frozenset[str]

    def admit(self, method: str, names: Iterable[str], token: str) -> Caller:  # noqa: ARG002
        """One of the allowed names."""
        found = list(names)
        for name in found:
            if name in self.allowed:
                return Caller(name, Role.ADMIN)
        shown = ", ".join(found) or "no name"
        raise PermissionDenied(f"a certificate of {shown} may not call {method}; {', '.join(sorted(self.allowed))} may")


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    role: Literal["viewer", "operator", "admin"]
    tenant: str = Field("", pattern=r"^([a-z0-9][a-z0-9-]{0,62})?$")
    certificate: str = ""
    token_sha256: str = Field("", pattern=r"^([0-9a-f]{64})?$")

    @model_validator(mode="after")
    def _whole(self) -> _Entry:
        if not (self.certificate or self.token_sha256):
            raise ValueError("a caller needs a certificate's name or a token's SHA-256")
        if self.role != "admin" and not self.tenant:
            raise ValueError("a viewer or operator needs a tenant")
        return self


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    caller: tuple[_Entry, ...] = Field(min_length=1)


class CallersFile:
    """The callers that a TOML file lists; read again when it changes. A file gone bad leaves the old list in force.

    [[caller]]
    name = "nightly"            # in logs and the audit
    role = "operator"           # viewer, operator or admin
    tenant = "team-a"           # not for admins
    certificate = "nightly"     # common name or DNS name of its certificate, or
    token_sha256 = "…"          # SHA-256, in hexadecimal digits, of its bearer token
    """

    def __init__(self, path: Path) -> None:
        """Raises InvalidConfig where the file is not there or not valid."""
        self._path = path
        self._seen = self._stamp()
        self._entries = read_callers(path)

    def admit(self, method: str, names: Iterable[str], token: str) -> Caller:
        """Whoever the file lists, for what its role may do."""
        caller = self._known(list(names), token)
        action = method.rpartition("/")[2]
        if caller.role < Role.OPERATOR and not action.startswith(_READS):
            raise PermissionDenied(f"{caller.name} is a viewer and may not call {action}; ask for the role operator")
        return caller

    def _known(self, names: Sequence[str], token: str) -> Caller:
        digest = hashlib.sha256(token.encode()).hexdigest() if token else ""
        for entry in self._current():
            by_token = bool(digest) and hmac.compare_digest(entry.token_sha256, digest)
            if by_token or (entry.certificate and entry.certificate in names):
                return Caller(entry.name, Role[entry.role.upper()], "" if entry.role == "admin" else entry.tenant)
        given = f"a certificate of {', '.join(names)}" if names else "no certificate"
        raise Unauthenticated(
            f"not a known caller: {given}{' and an unknown token' if token else ''}; the operator lists callers in "
            "SEAL_CONTROLLER_CALLERS_FILE"
        )

    def _current(self) -> tuple[_Entry, ...]:
        try:
            if (now := self._stamp()) != self._seen:
                self._entries, self._seen = read_callers(self._path), now
                log.info("callers read again", callers=len(self._entries))
        except InvalidConfig as error:
            log.error("callers not read again", message=error.message)
        return self._entries

    def _stamp(self) -> tuple[int, ...]:
        try:
            found = self._path.stat()
        except OSError as error:
            raise InvalidConfig(f"callers file {self._path}: {error.strerror}") from error
        return found.st_mtime_ns, found.st_ino, found.st_size


def read_callers(path: Path) -> tuple[_Entry, ...]:
    """The file's entries. Raises InvalidConfig naming what is wrong."""
    try:
        return _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))).caller
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidConfig(f"callers file {path} cannot be read: {error}") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InvalidConfig(f"callers file {path}: {faults}") from error


def names_in(context: Mapping[str, Iterable[bytes]]) -> list[str]:
    """The names of a peer's certificate, from gRPC's auth context: common name and DNS names. None without TLS."""
    keys = ("x509_common_name", "x509_subject_alternative_name")
    return list(dict.fromkeys(name.decode(errors="replace") for key in keys for name in context.get(key, ())))
