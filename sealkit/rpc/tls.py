"""TLS both ways: who a process is, and whom it trusts, as three PEM files that may be replaced while it runs."""

from __future__ import annotations

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
    """`ca`: certificates of the authorities that the other side must come from (two of them while one replaces the
    other); `cert` with `key`: one's own, the chain included; a client that is known by a token has none."""

    ca: Path
    cert: Path | None = None
    key: Path | None = None

    def channel_credentials(self, token: str = "") -> grpc.ChannelCredentials:
        """For a client, with a bearer token where it has one. Raises InvalidConfig where a file cannot be read."""
        ca, cert, key = self._read()
        credentials = grpc.ssl_channel_credentials(ca, key, cert)
        if not token:
            return credentials
        return grpc.composite_channel_credentials(credentials, grpc.access_token_call_credentials(token))

    def server_credentials(self, *, client_certificates: bool = True) -> grpc.ServerCredentials:
        """For a server; with `client_certificates` it lets nobody in without one. The files are read again once they
        have changed, so a certificate is replaced without a restart; files that went bad leave the old ones in force.

        Raises InvalidConfig where a file cannot be read at the start, or there is no certificate.
        """
        if self.cert is None:
            raise InvalidConfig("a server needs a certificate of its own: set tls_cert and tls_key")
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

        # gRPC's own stubs forget that the fetcher returns None while nothing has changed.
        fetch = cast("Callable[[], grpc.ServerCertificateConfiguration]", changed)
        return grpc.dynamic_ssl_server_credentials(first, fetch, require_client_authentication=client_certificates)

    def stamp(self) -> Stamp:
        """Changes when a file does. Raises InvalidConfig where one is not there."""
        try:
            found = [path.stat() for path in self._files()]
        except OSError as error:
            raise InvalidConfig(f"TLS file {error.filename}: {error.strerror}") from error
        return tuple(number for one in found for number in (one.st_mtime_ns, one.st_ino, one.st_size))

    def expiry(self) -> float:
        """When one's own certificate expires, in seconds since the epoch. Raises InvalidConfig."""
        from cryptography import x509  # the command line and the client do without it

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
    """The identity of three settings; None where none is set. Raises InvalidConfig where only a part is."""
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
    if b"-----BEGIN" not in content or kind not in content:
        raise InvalidConfig(f"TLS file {path} holds no PEM {kind.decode().lower()}")
    return content
