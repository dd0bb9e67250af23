"""Redis by URL: a single server, one behind TLS, or the current master of a Sentinel group.

redis://[user:password@]host:port/db            rediss:// is the same over TLS, checked against the system's CAs or
                                                ?ssl_ca_certs=PATH (and ssl_certfile, ssl_keyfile, ssl_cert_reqs)
unix://[user:password@]/path/to/socket?db=0
redis+sentinel://[user:password@]h1:26379,h2:26379/master-name/db[?sentinel_username=…&sentinel_password=…]
                                                rediss+sentinel:// is the same over TLS, to the Sentinels too
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from redis.asyncio import Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff

from sealkit.errors import InvalidConfig
from sealkit.urls import ENCODE_PASSWORD, has_unquoted_login, without_password

_ANSWER_SECONDS = 5.0
_SENTINEL_PORT = 26379


def connect(url: str) -> Redis:
    """A client of the Redis at this URL; it connects at the first call. Raises InvalidConfig if it is not a Redis
    URL."""
    try:
        if has_unquoted_login(url):
            raise ValueError(ENCODE_PASSWORD)
        scheme = urlsplit(url).scheme
        if scheme in ("redis+sentinel", "rediss+sentinel"):
            return _by_sentinel(url)
        if scheme in ("redis", "rediss"):
            _check_database(urlsplit(url).path)
        return Redis.from_url(url, **_options())
    except ValueError as error:
        why = ENCODE_PASSWORD if "@" in url and not isinstance(error, _NoDatabase) else str(error)
        raise InvalidConfig(
            f"{without_password(url)} is not a Redis URL (redis://host:port/0, rediss://…, unix:///path or "
            f"redis+sentinel://host:port,host:port/master/0): {why}"
        ) from None  # the cause may quote the password


class _NoDatabase(ValueError):
    """The path of a URL is not the number of a database; redis-py would take database 0."""


def _check_database(path: str) -> None:
    if not re.fullmatch(r"/?[0-9]*/?", path):
        raise _NoDatabase(f"{path!r} is not the number of a database, as in /0; for a Unix socket write unix:///path")


async def close(client: Redis) -> None:
    """Closes a client's connections, also those to its Sentinels."""
    await client.aclose()
    if isinstance(client.connection_pool, SentinelConnectionPool):
        for sentinel in client.connection_pool.sentinel_manager.sentinels:
            await sentinel.aclose()


def _options() -> dict[str, Any]:
    return {
        "decode_responses": True,
        "encoding_errors": "replace",  # invalid UTF-8 is never a trial's name; it must not stop the reader
        "socket_connect_timeout": _ANSWER_SECONDS,
        "socket_timeout": 2 * _ANSWER_SECONDS,
        "health_check_interval": 15,
        "retry": Retry(NoBackoff(), 1),  # a stale connection is replaced at once; longer retries are up to the caller
    }


def _by_sentinel(url: str) -> Redis:
    parts = urlsplit(url)
    login, at, hosts = parts.netloc.rpartition("@")
    master, _, db = parts.path.strip("/").partition("/")
    if not hosts or not master:
        raise ValueError("it has no Sentinel host or no master")
    _check_database(f"/{db}")
    # redis-py parses login, database and query, from the URL that a single server would have.
    scheme = parts.scheme.partition("+")[0]
    plain = parse_url(urlunsplit((scheme, f"{login}{at}single", f"/{db or 0}", parts.query, "")))
    kwargs: dict[str, Any] = {key: value for key, value in plain.items() if key not in ("host", "connection_class")}
    tls = {key: value for key, value in kwargs.items() if key.startswith("ssl_")}
    if scheme == "rediss":
        tls["ssl"] = kwargs["ssl"] = True
    own = {key: kwargs.pop(f"sentinel_{key}") for key in ("username", "password") if f"sentinel_{key}" in kwargs}
    asked = [_host(one) for one in hosts.split(",") if one]
    sentinels = Sentinel(asked, sentinel_kwargs={**_options(), **tls, **own})  # type: ignore[no-untyped-call]
    client: Redis = sentinels.master_for(unquote(master), **{**_options(), **kwargs})
    return client


def _host(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError(f"{text!r} is not a Sentinel's host:port")
    return parts.hostname, parts.port or _SENTINEL_PORT
