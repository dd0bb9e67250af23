"""URLs and addresses: paths land where they point, passwords are not shown, and what is none is refused by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from redis.asyncio.connection import parse_url
from sqlalchemy import make_url

from sealkit.database_url import parse_database_url
from sealkit.errors import InvalidConfig
from sealkit.redis_url import connect
from sealkit.store import AdapterStore, open_filesystem
from sealkit.urls import check_address, socket_url, sqlite_url, without_password

NAMES = ("plain", "a#b", "a?b=c", "100%", "a%41b", "a b", "ü", "a@b:c", "x::y", "[v]")
PATHS = [Path("/data", name) for name in NAMES]


def test_every_path_comes_back_out_of_its_url() -> None:
    """As the libraries that read the URLs decode them."""
    assert [make_url(sqlite_url(path)).database for path in PATHS] == [str(path) for path in PATHS]
    assert [parse_url(socket_url(path))["path"] for path in PATHS] == [str(path) for path in PATHS]
    assert [open_filesystem(str(path))[1] for path in PATHS] == [str(path) for path in PATHS]


def test_a_store_is_in_the_folder_that_was_named(tmp_path: Path) -> None:
    for path in PATHS:
        folder = tmp_path / path.name
        AdapterStore(str(folder)).put("ab" * 32, {"x.bin": b"x"}, {})
        assert (folder / "adapters" / "ab" / ("ab" * 32) / "x.bin").read_bytes() == b"x"
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(path.name for path in PATHS)


def test_no_part_of_a_password_is_shown() -> None:
    for url in (
        "redis://:hush@h/0", "redis://u:hu#sh@h:1/0", "redis://u:hu/sh@h", "redis://u:hu?sh@h", "redis://u:hu@sh@h",
        "redis://hush@h/0", "redis://:hush/0", "redis://h/0?password=hush", "redis://h/0?password=hush#sh",
        "redis+sentinel://h/m?sentinel_password=hush", "postgresql://u:hu@sh@h/db", "postgresql://u:hu%sh@h/db",
    ):  # fmt: skip
        shown = without_password(url)
        assert "hu" not in shown, url
        assert "sh" not in shown.removeprefix("redis"), url
    assert without_password("redis://h:1/0") == "redis://h:1/0"
    assert without_password("unix:///tmp/a.sock?db=1") == "unix:///tmp/a.sock?db=1"


def test_a_redis_url_that_would_reach_another_place_is_refused() -> None:
    """redis-py takes database 0 for `/abc`, and the host `localhost` for a login that is cut off."""
    for url, said in (
        ("redis://h/abc", "not the number of a database"),
        ("rediss://h:1/0/1", "not the number of a database"),
        ("redis+sentinel://h:1/master/abc", "not the number of a database"),
        ("redis://h/0?db=abc", "db"),
        ("redis://h:99999/0", "out of range"),
        ("redis://:12#hush@h/0", "%23"),
        ("redis://:12?hush@h/0", "%3F"),
        ("redis://u:12/hush@h/0", "%2F"),
        ("http://h", "redis://host:port/0"),
    ):
        with pytest.raises(InvalidConfig) as refused:
            connect(url)
        assert said in refused.value.message, url
        assert "hush" not in refused.value.message
    for good in ("redis://h", "redis://h/3", "redis://u:p%40@h:1/", "unix:///a@b/s?db=2", "redis://h?password=a@b"):
        connect(good)


def test_a_database_url_that_is_none_is_refused_by_the_name_of_its_setting() -> None:
    for url, said in (
        ("postgresql://u:hu@sh@h/db", "%40"),
        ("postgresql://u:hush@h:99999/db", "no port 99999"),
        ("mysql://u:hush@h/db", "'mysql'"),
        ("u:hush@h", "%2F"),
        ("", "sqlite:///PATH"),
    ):
        with pytest.raises(InvalidConfig, match=r"^THE_SETTING") as refused:
            parse_database_url(url, "THE_SETTING")
        assert said in refused.value.message, url
        assert "sh@" not in refused.value.message
    assert parse_database_url("postgresql://u@h/db", "x").drivername == "postgresql+psycopg"


def test_an_address_is_host_and_port() -> None:
    for good in ("h:1", "127.0.0.1:65535", "[::1]:80", "unix:/a/b", "dns:///h:1", "dns:1"):
        assert check_address(good) == good
    for text, said in (
        ("h", "not host:port"), (":1", "not host:port"), ("h:", "not host:port"), ("h:x", "not host:port"),
        ("h:65536", "no port 65536"), ("http://h:1/", "write 'h:1'"), ("https://h:1", "SEAL_TLS_CA"),
        ("u:p@h:1", "not host:port"), ("h:1,g:2", "not host:port"), ("h:١", "not host:port"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=re.escape(said)):
            check_address(text)
