"""What lies beneath the services: Redis, SQL, the store, disk, GPU, clocks, certificates."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterable

import fsspec
from redis.exceptions import RedisError
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from seal_cli.doctor.setup import MODEL_SERVICES, Line, Settings
from sealkit.errors import InvalidConfig
from sealkit.redis_url import close, connect, without_password
from sealkit.rpc.tls import identity_of

_SKEW_SECONDS = 5.0
_LEFT_BYTES = 2 << 30
_DAYS = 14
_DAY = 86400.0


async def check_redis(settings: Settings) -> list[Line]:
    """Whether it answers, and whether its clock is this machine's."""
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
    except (RedisError, OSError, InvalidConfig) as error:
        return [Line("redis", False, f"{shown}: {error}", "start it, or mend SEAL_CONTROLLER_REDIS_URL")]
    skew = seconds + micros / 1e6 - now
    return [
        Line("redis", True, shown),
        Line("clock", abs(skew) < _SKEW_SECONDS, f"{skew:+.1f} s to Redis", "set both clocks by NTP"),
    ]


async def check_sql(settings: Settings) -> list[Line]:
    """Whether the record's database answers."""
    url = settings.get("CONTROLLER_DATABASE_URL")
    try:
        shown = make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        return [Line("sql", False, "SEAL_CONTROLLER_DATABASE_URL is no URL of a database", "see docs/operations.md")]

    def ask() -> None:
        engine = create_engine(url)
        try:
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        finally:
            engine.dispose()

    try:
        await asyncio.to_thread(ask)
    except (SQLAlchemyError, OSError, ImportError) as error:
        said = str(getattr(error, "orig", None) or error).splitlines()[0]
        mend = "start the database, or mend SEAL_CONTROLLER_DATABASE_URL; SQLite's folder must be there and writable"
        return [Line("sql", False, f"{shown}: {said}", mend)]
    return [Line("sql", True, shown)]


async def check_stores(settings: Settings) -> list[Line]:
    """Whether the services' stores are one, can be written, and have room."""
    urls = {name: settings.get(f"{name.upper()}_STORE_URL") for name in MODEL_SERVICES}
    named = {name: url for name, url in urls.items() if url}
    if not named:
        return []
    lines = [await asyncio.to_thread(_store, url) for url in sorted(set(named.values()))]
    if len(set(named.values())) > 1:
        shown = ", ".join(f"{name} {url}" for name, url in named.items())
        lines.append(Line("store", False, f"not one: {shown}", "give all SEAL_*_STORE_URL the same URL"))
    return lines


def _store(url: str) -> Line:
    try:
        fs, root = fsspec.core.url_to_fs(url)
        fs.makedirs(root, exist_ok=True)
        place = f"{root.rstrip('/')}/.doctor-{uuid.uuid4().hex}"
        fs.pipe_file(place, b"ok")
        fs.rm_file(place)
    except (OSError, ValueError, ImportError) as error:
        return Line("store", False, f"{url}: {error}", "make it a folder or bucket that the services may write to")
    if "file" not in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)):
        return Line("store", True, f"{url} can be written")
    free = shutil.disk_usage(root).free
    good = free > _LEFT_BYTES
    return Line(
        "store", good, f"{url} can be written; {free / (1 << 30):.1f} GiB free",
        "" if good else "free some disk, or move the store",
    )  # fmt: skip


async def check_gpu(settings: Settings) -> list[Line]:
    """What nvidia-smi says, and whether a service was given a GPU that is not there."""
    wanted = [name for name in MODEL_SERVICES if settings.get(f"{name.upper()}_DEVICE").startswith("cuda")]
    try:
        query = ["nvidia-smi", "--query-gpu=name,memory.free", "--format=csv,noheader"]
        told = await asyncio.to_thread(subprocess.run, query, capture_output=True, text=True, timeout=10, check=False)
        found = "; ".join(told.stdout.split("\n")).strip("; ") if told.returncode == 0 else ""
    except (OSError, subprocess.TimeoutExpired):
        found = ""
    if found:
        return [Line("gpu", True, f"{found} free")]
    if wanted:
        mend = "install the driver, or set SEAL_*_DEVICE to cpu or auto"
        return [Line("gpu", False, f"none here, and {', '.join(wanted)} should use one", mend)]
    return [Line("gpu", True, "none here; the services decode and train on the CPU")]


def check_certificates(settings: Settings) -> Iterable[Line]:
    """One's own certificate and those of the services, where TLS is on."""
    for who in ("", "CONTROLLER_", *(f"{name.upper()}_" for name in MODEL_SERVICES)):
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
            yield Line(what, False, error.message, f"mend SEAL_{who}TLS_CA, _CERT and _KEY")
            continue
        ends = f"ends in {days:.0f} days" if days > 0 else f"ended {-days:.0f} days ago"
        yield Line(what, days > _DAYS, f"{parts[1]} {ends}", "" if days > _DAYS else "`seal certs` makes a new one")
