"""Mutual TLS: a process's identity and its trusted authorities, as three PEM files that may be replaced at run time."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import grpc
import structlog

from sealkit.errors import InvalidConfig

log = structlog.get_logger(__name__)

Stamp = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Identity:
    """`ca`: certificates of the authorities for the other side (two of them during a replacement); `cert` with `key`:
    the process's own, with its chain; a client with a token has none."""

    ca: Path
    cert: Path | None = None
    key: Path | None = None

    def channel_credentials(self, token: str = "") -> grpc.ChannelCredentials:
        """For a client, with its bearer token if it has one. Raises InvalidConfig if a file cannot be read."""
        ca, cert, key = self._read()
        credentials = grpc.ssl_channel_credentials(ca, key, cert)
        if not token:
            return credentials
        return grpc.composite_channel_credentials(credentials, grpc.access_token_call_credentials(token))

    def server_credentials(self, *, client_certificates: bool = True) -> grpc.ServerCredentials:
        """For a server; with `client_certificates` every client needs one. Changed files are reloaded, so a certificate
        is replaced without a restart; while the files are invalid, the old ones stay in use.

        Raises InvalidConfig if a file cannot be read at the start, or there is no certificate.
        """
        if self.cert is None:
            raise InvalidConfig("a server needs its own certificate: set tls_cert and tls_key")
        seen = self.stamp()
        first = self._configuration()

        def changed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal seen
            try:
                if (now := self.stamp()) == seen:
                    return None
                configuration = self._configuration()
            except InvalidConfig as error:
                log.error("certificate not replaced", message=error.message)
                return None
            seen = now
            log.info("certificate replaced", file=str(self.cert))
            return configuration

        # gRPC's type stubs omit that the fetcher may return None if nothing has changed.
        fetch = cast("Callable[[], grpc.ServerCertificateConfiguration]", changed)
        return grpc.dynamic_ssl_server_credentials(first, fetch, require_client_authentication=client_certificates)

    def stamp(self) -> Stamp:
        """Changes when a file does. Raises InvalidConfig if one is missing."""
        try:
            found = [path.stat() for path in self._files()]
        except OSError as error:
            raise InvalidConfig(f"TLS file {error.filename}: {error.strerror}") from error
        return tuple(number for one in found for number in (one.st_mtime_ns, one.st_ino, one.st_size))

    def expiry(self) -> float:
        """Expiry of the process's own certificate, in seconds since the epoch. Raises InvalidConfig."""
        from cryptography import x509  # not a dependency of the command line and the client

        _, cert, _ = self._read()
        try:
            return x509.load_pem_x509_certificate(cert or b"").not_valid_after_utc.timestamp()
        except ValueError as error:
            raise InvalidConfig(f"TLS file {self.cert} holds no certificate: {error}") from error

    def _files(self) -> list[Path]:
        return [path for path in (self.ca, self.cert, self.key) if path is not None]

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        ca, cert, key = self._read()
        return grpc.ssl_server_certificate_configuration([(key or b"", cert or b"")], root_certificates=ca)

    def _read(self) -> tuple[bytes, bytes | None, bytes | None]:
        ca, cert, key = (_pem(self.ca, b"CERTIFICATE"), _pem(self.cert, b"CERTIFICATE"), _pem(self.key, b"KEY"))
        assert ca is not None
        return ca, cert, key


def identity_of(ca: str, cert: str, key: str) -> Identity | None:
    """The identity from three settings; None if none is set. Raises InvalidConfig if only some are."""
    if not (ca or cert or key):
        return None
    if not ca or bool(cert) != bool(key):
        raise InvalidConfig("TLS needs the CA's file, and a certificate together with its key")
    return Identity(Path(ca), Path(cert) if cert else None, Path(key) if key else None)


def _pem(path: Path | None, kind: bytes) -> bytes | None:
    if path is None:
        return None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidConfig(f"TLS file {error.filename}: {error.strerror}") from error
    # Of the label: the letters of a kind may be anywhere in the base64 text of another.
    if not re.search(rb"-----BEGIN (?:[A-Z0-9]+ )*" + kind + b"-----", content):
        raise InvalidConfig(f"TLS file {path} holds no PEM {kind.decode().lower()}")
    return content
