"""A certificate authority for your own stack, and the certificates that it signs. Existing files are kept until they
are about to expire. With an authority of your own you need none of this, only files with the same names.

    ca.crt ca.key                     the authority; only the issuer needs its key
    {name}/tls.crt {name}/tls.key     one folder for each process or caller, with a copy of ca.crt
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sealkit.errors import InvalidConfig

CALLED_FROM_OUTSIDE = ("controller", "gateway")
"""The others' certificates must not be usable under a host name that callers dial."""
SERVICES = (*CALLED_FROM_OUTSIDE, "worker", "generator", "trainer", "evaluator", "redis", "postgres", "vllm")
"""The services of the compose stack, by their names there."""
_CA_DAYS = 3650
_RENEW_DAYS = 30


@dataclass(frozen=True, slots=True)
class Signed:
    """A certificate with its key."""

    cert: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make(folder: Path, names: Sequence[str], *, hosts: Sequence[str], days: int, renew: bool = False) -> list[str]:
    """Creates the authority if there is none, and a certificate for each of `names` that has none or whose certificate
    expires within a month or does not cover all of `hosts` (for all names with `renew`). Returns the names that got a
    certificate. A name that is not in `SERVICES` is a caller: its certificate is for TLS clients only and names no
    host, so a thief cannot use it to impersonate a service. Raises InvalidConfig on unreadable or invalid files."""
    folder.mkdir(parents=True, exist_ok=True)
    signer = _load(folder / "ca.crt", folder / "ca.key") if (folder / "ca.crt").exists() else _authority(folder)
    issued = []
    for name in names:
        place, server = folder / name, name in SERVICES
        before = _hosts(place / "tls.crt")
        if renew or _ends_soon(place / "tls.crt") or (server and not set(hosts) <= set(before)):
            known_as = [name, "localhost", "127.0.0.1", *hosts, *before] if server else [name]
            write(issue(signer, name, known_as, days=days, server=server), place, ca=signer.cert)
            issued.append(name)
    return issued


def authority(name: str = "SEAL stack") -> Signed:
    """A new authority, self-signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(name)
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = (
        _builder(subject, subject, key, days=_CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return Signed(builder.sign(key, hashes.SHA256()), key)


def issue(signer: Signed, name: str, hosts: Iterable[str], *, days: int, server: bool = True) -> Signed:
    """A certificate for a client called `name`, with `server` for a server too. It is valid from an hour ago (clocks
    differ) for `days` days; a negative number gives an expired one."""
    key = ec.generate_private_key(ec.SECP256R1())
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if server else [])]
    builder = (
        _builder(_name(name), signer.cert.subject, key, days=days)
        .add_extension(x509.SubjectAlternativeName([_host(host) for host in dict.fromkeys(hosts)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
    )
    return Signed(builder.sign(signer.key, hashes.SHA256()), key)


def write(signed: Signed, folder: Path, *, ca: x509.Certificate) -> None:
    """Writes `ca.crt`, `tls.crt` and `tls.key` to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "ca.crt", _pem(ca))
    _write(folder / "tls.key", _key(signed.key), secret=True)
    _write(folder / "tls.crt", _pem(signed.cert))


def _authority(folder: Path) -> Signed:
    made = authority()
    _write(folder / "ca.key", _key(made.key), secret=True)
    _write(folder / "ca.crt", _pem(made.cert))
    return made


def _load(cert: Path, key: Path) -> Signed:
    try:
        loaded = serialization.load_pem_private_key(key.read_bytes(), password=None)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise InvalidConfig(
                f"{key} is not an elliptic-curve key; if you have your own authority, issue certificates with its tools"
            )
        return Signed(x509.load_pem_x509_certificate(cert.read_bytes()), loaded)
    except OSError as error:
        raise InvalidConfig(f"{error.filename}: {error.strerror}; the authority's key is needed to issue") from error
    except ValueError as error:
        raise InvalidConfig(f"{cert} and {key} are not a certificate authority: {error}") from error


def _ends_soon(cert: Path) -> bool:
    old = _there(cert)
    return old is None or old.not_valid_after_utc - datetime.now(UTC) < timedelta(days=_RENEW_DAYS)


def _hosts(cert: Path) -> list[str]:
    """Host names and addresses that a certificate covers; empty if it covers none."""
    old = _there(cert)
    if old is None:
        return []
    try:
        named = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*named.get_values_for_type(x509.DNSName), *map(str, named.get_values_for_type(x509.IPAddress))]


def _there(cert: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(cert.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InvalidConfig(f"{cert} is not a certificate: {error}; remove it to get a new one") from error


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, *, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    begins = now - timedelta(hours=1) + min(timedelta(0), timedelta(days=days - 1))
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(now + timedelta(days=days))
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(cert: x509.Certificate) -> bytes:
    return cert.public_bytes(serialization.Encoding.PEM)


def _key(key: ec.EllipticCurvePrivateKey) -> bytes:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


def _write(path: Path, content: bytes, *, secret: bool = False) -> None:
    """Writes atomically: a service may read the file at this moment."""
    scratch = path.with_name(f".{path.name}.new")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600 if secret else 0o644)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        if os.geteuid() == 0:  # the services run as the folder's owner, and read the file as soon as it exists
            owner = path.parent.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
    scratch.replace(path)
