"""URLs and addresses that people write: paths quoted into URLs, passwords hidden in messages, addresses checked."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

_SECRETS = ("password", "sentinel_password")
_GRPC_SCHEME = re.compile(r"(unix|unix-abstract|ipv4|ipv6|vsock):|(dns|xds)://")
ENCODE_PASSWORD = "write characters like / @ # ? and % in a user or password as %2F %40 %23 %3F and %25"


def path_in_url(path: Path) -> str:
    """The path as it is written in a URL (RFC 3986, 2.1): everything but letters, digits and `/._-~` is quoted."""
    return quote(os.fsencode(path))


def sqlite_url(path: Path) -> str:
    """SQLAlchemy's URL of a SQLite file."""
    return f"sqlite:///{path_in_url(path)}"


def socket_url(path: Path) -> str:
    """redis-py's URL of a Unix socket."""
    return f"unix://{path_in_url(path)}"


def without_password(url: str) -> str:
    """The URL without its passwords, for messages; also if a character that is not quoted makes the URL invalid."""
    scheme, slashes, rest = url.partition("://")
    login, at, where = rest.rpartition("@")
    user, colon, _ = login.partition(":")
    try:
        parts = urlsplit(f"{scheme}{slashes}{where}")
        if not at and parts.scheme != "unix":
            _ = parts.port  # without an @, a password may stand in the place of the port
    except ValueError:
        return f"{scheme}{slashes}***"
    if any(secret in parts.query for secret in _SECRETS):
        named = [(name, "***" if name in _SECRETS else value) for name, value in parse_qsl(parts.query)]
        where = where.partition("?")[0] + "?" + urlencode(named, safe="*/")  # and no fragment: it may be a part of one
    shown = f"{user}:***" if colon else "***" * bool(at)  # without a colon it may be the password
    return f"{scheme}{slashes}{shown}{at}{where}"


def has_unquoted_login(url: str) -> bool:
    """Whether a `/`, `?` or `#` in the user or password of a URL with a host cuts it off, so that a part of it would be
    taken for the host."""
    parts = urlsplit(url)
    if "@" in parts.netloc or not parts.netloc:
        return False
    names = "".join(name for name, _ in parse_qsl(parts.query, keep_blank_values=True))
    return "@" in parts.path + parts.fragment + names


def check_address(text: str) -> str:
    """An address that gRPC can listen on or call: `host:port`, `[v6]:port`, or one with a scheme of gRPC's own
    (`unix:path`, `dns:///host:port`). Returns it. Raises what `check_host_port` raises."""
    return text if _GRPC_SCHEME.match(text) else check_host_port(text)


def check_host_port(text: str) -> str:
    """`host:port` or `[v6]:port`. Returns it. Raises ValueError that says what is wrong with it."""
    scheme, slashes, rest = text.partition("://")
    if slashes:
        tls = "; TLS is used where SEAL_TLS_CA or a service's own TLS_CA is set" if scheme == "https" else ""
        raise ValueError(f"{text!r} is a URL, but an address is host:port; write {rest.rstrip('/')!r}{tls}")
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdecimal() or re.search(r"[\s/@?#,]", host):
        raise ValueError(f"{text!r} is not host:port")
    if int(port) > 65535:
        raise ValueError(f"{text!r}: there is no port {port}; the highest is 65535")
    return text
