"""The infrastructure of the services: Redis, SQL, the store, disk, GPU, clocks, certificates."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterable

from fsspec.implementations.local import LocalFileSystem
from redis.exceptions import AuthenticationError, RedisError
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from seal_cli.doctor.setup import MODEL_SERVICES, Line, Settings
from sealkit.database_url import parse_database_url
from sealkit.errors import InvalidConfig, Unavailable
from sealkit.queue import Queue
from sealkit.redis_url import close, connect
from sealkit.rpc.tls import identity_of
from sealkit.store import open_filesystem
from sealkit.urls import without_password

_SKEW_SECONDS = 5.0
_LEFT_BYTES = 2 << 30
_DAYS = 14
_DAY = 86400.0


async def check_redis(settings: Settings) -> list[Line]:
    """Whether Redis answers and takes what the queue writes, and whether its clock agrees with this machine's."""
    url = settings.get("CONTROLLER_REDIS_URL")
    shown = without_password(url)
    try:
        client = connect(url)
        try:
            began = time.time()
            seconds, micros = await client.time()
            now = (began + time.time()) / 2
        finally:
            await close(client)
    except InvalidConfig as error:
        return [Line("redis", False, error.message, "fix SEAL_CONTROLLER_REDIS_URL")]
    except AuthenticationError:
        return [await _queue(settings, shown)]
    except (RedisError, OSError) as error:
        return [Line("redis", False, f"{shown}: {error}", "start it, or fix SEAL_CONTROLLER_REDIS_URL")]
    skew = seconds + micros / 1e6 - now
    return [
        await _queue(settings, shown),
        Line("clock", abs(skew) < _SKEW_SECONDS, f"{skew:+.1f} s to Redis", "set both clocks by NTP"),
    ]


async def _queue(settings: Settings, shown: str) -> Line:
    prefix = settings.get("CONTROLLER_QUEUE")
    queue = Queue(settings.get("CONTROLLER_REDIS_URL"), consumer="doctor", stream=prefix)
    try:
        await queue.check()
    except Unavailable as error:
        fix = error.metadata.get("fix", "start it, or fix SEAL_CONTROLLER_REDIS_URL")
        return Line("redis", False, error.message.removesuffix(f"; {fix}"), fix)
    finally:
        await queue.close()
    return Line("redis", True, f"{shown} takes what is written under {prefix}")


async def check_sql(settings: Settings) -> list[Line]:
    """Whether the database answers and may be written to."""
    url = settings.get("CONTROLLER_DATABASE_URL")
    try:
        parsed = parse_database_url(url, "SEAL_CONTROLLER_DATABASE_URL")
    except InvalidConfig as error:
        return [Line("sql", False, error.message, "fix SEAL_CONTROLLER_DATABASE_URL; see docs/operations.md")]
    shown = parsed.render_as_string(hide_password=True)

    def read_only() -> bool:
        engine = create_engine(parsed)
        try:
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))
                asked = connection.dialect.name == "postgresql"  # SQLite says it only when it is written to
                return asked and connection.scalar(text("SHOW transaction_read_only")) == "on"
        finally:
            engine.dispose()

    try:
        refuses = await asyncio.to_thread(read_only)
    except (SQLAlchemyError, OSError, ImportError) as error:
        said = str(getattr(error, "orig", None) or error).splitlines()[0]
        fix = "start the database, or fix SEAL_CONTROLLER_DATABASE_URL; SQLite's folder must exist and be writable"
        return [Line("sql", False, f"{shown}: {said}", fix)]
    if refuses:
        return [
            Line("sql", False, f"{shown} is read-only", "name the primary, or end its default_transaction_read_only")
        ]
    return [Line("sql", True, shown)]


async def check_stores(settings: Settings) -> list[Line]:
    """Whether the services share one store, and whether it is writable and has free space."""
    urls = {name: settings.get(f"{name.upper()}_STORE_URL") for name in MODEL_SERVICES}
    named = {name: url for name, url in urls.items() if url}
    if not named:
        return []
    lines = [await asyncio.to_thread(_store, url) for url in sorted(set(named.values()))]
    if len(set(named.values())) > 1:
        shown = ", ".join(f"{name} {url}" for name, url in named.items())
        lines.append(Line("store", False, f"not the same: {shown}", "give all SEAL_*_STORE_URL the same URL"))
    return lines


def _store(url: str) -> Line:
    try:
        fs, root = open_filesystem(url)
        fs.makedirs(root, exist_ok=True)
        place = f"{root.rstrip('/')}/.doctor-{uuid.uuid4().hex}"
        fs.pipe_file(place, b"ok")
        fs.rm_file(place)
    except (OSError, ValueError, ImportError) as error:
        return Line("store", False, f"{url}: {error}", "use a folder or bucket that the services can write to")
    if not isinstance(fs, LocalFileSystem):
        return Line("store", True, f"{url} is writable")
    free = shutil.disk_usage(root).free
    good = free > _LEFT_BYTES
    return Line(
        "store", good, f"{url} is writable; {free / (1 << 30):.1f} GiB free",
        "" if good else "free some disk, or move the store",
    )  # fmt: skip


async def check_gpu(settings: Settings) -> list[Line]:
    """What nvidia-smi reports, and whether a service is configured for a GPU that does not exist."""
    wanted = [name for name in MODEL_SERVICES if settings.get(f"{name.upper()}_DEVICE").startswith("cuda")]
    try:
        query = ["nvidia-smi", "--query-gpu=name,memory.free", "--format=csv,noheader"]
        reply = await asyncio.to_thread(subprocess.run, query, capture_output=True, text=True, timeout=10, check=False)
        found = "; ".join(reply.stdout.split("\n")).strip("; ") if reply.returncode == 0 else ""
    except (OSError, subprocess.TimeoutExpired):
        found = ""
    if found:
        return [Line("gpu", True, f"{found} free")]
    if wanted:
        fix = "install the driver, or set SEAL_*_DEVICE to cpu or auto"
        return [Line("gpu", False, f"none here, but {', '.join(wanted)} should use one", fix)]
    return [Line("gpu", True, "none here; the services decode and train on the CPU")]


def check_certificates(settings: Settings) -> Iterable[Line]:
    """The caller's certificate and those of the services, if TLS is on."""
    for who in ("", "CONTROLLER_", "GATEWAY_", *(f"{name.upper()}_" for name in MODEL_SERVICES)):
        parts = [settings.get(f"{who}TLS_{part}") for part in ("CA", "CERT", "KEY")]
        what = f"certificate of {who.rstrip('_').lower() or 'this caller'}"
        try:
            identity = identity_of(*parts)
            if identity is None:
                continue
            identity.channel_credentials()
            if identity.cert is None:
                continue
            days = (identity.expiry() - time.time()) / _DAY
        except InvalidConfig as error:
            yield Line(what, False, error.message, f"fix SEAL_{who}TLS_CA, _CERT and _KEY")
            continue
        ends = f"expires in {days:.0f} days" if days > 0 else f"expired {-days:.0f} days ago"
        yield Line(
            what, days > _DAYS, f"{parts[1]} {ends}", "" if days > _DAYS else "`seal certs make` issues a new one"
        )
