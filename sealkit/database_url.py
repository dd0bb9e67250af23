"""Databases by URL: SQLite by path, PostgreSQL by host. The parts that are quoted in a URL are decoded by SQLAlchemy.

sqlite:///PATH                                  four slashes for an absolute path; # ? and % in it as %23 %3F and %25
postgresql://USER:PASSWORD@HOST:PORT/NAME       with the driver psycopg
"""

from __future__ import annotations

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from sealkit.errors import InvalidConfig
from sealkit.urls import ENCODE_PASSWORD

_FORMS = "sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME"


def parse_database_url(text: str, source: str) -> URL:
    """The URL of a SQLite file or a PostgreSQL database. Raises InvalidConfig that names `source`, the setting, and
    quotes no part of a password."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        why = f"; {ENCODE_PASSWORD}" if "@" in text else ""
        raise InvalidConfig(f"{source} is not a database URL; use {_FORMS}{why}") from None  # the cause may quote it
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise InvalidConfig(f"{source} names {url.drivername!r}; use {_FORMS}")
    if url.get_backend_name() == "sqlite":
        return url
    if "@" in (url.host or ""):
        raise InvalidConfig(f"{source} has a user or password that ends too early; {ENCODE_PASSWORD}")
    if url.port is not None and url.port > 65535:
        raise InvalidConfig(f"{source}: there is no port {url.port}; the highest is 65535")
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url
