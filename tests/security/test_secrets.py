"""Passwords and tokens show up nowhere: no log, no error, no metric, no environment of a container, no command line."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from prometheus_client import generate_latest

from controller.db.database import Database
from sealkit.errors import InvalidConfig, SealError, Unavailable
from sealkit.queue import Queue
from sealkit.redis_url import connect
from sealkit.rpc.authority import CallersFile
from sealkit.urls import without_password
from tests.security.harness import ROOT

SECRET = "hUnter2/pw"
QUOTED = SECRET.replace("/", "%2F")
PARTS = ("hUnter2", "2/pw", "2%2Fpw")


async def _ask_redis(url: str) -> None:
    queue = Queue(url, consumer="c")
    try:
        await queue.ping()
    finally:
        await queue.close()


async def _ask_sql(url: str) -> None:
    database = Database(url)
    try:
        await database.start()
    finally:
        await database.close()


def tells(text: str) -> bool:
    """Whether a text gives the secret away, in part even."""
    return any(part in text for part in PARTS)


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{SECRET}@localhost:1/0", f"redis://seal:{SECRET}@localhost:1/0", f"rediss://u:{QUOTED}@localhost:1/0",
        f"redis://seal:{QUOTED}@localhost:no/0", f"unix://seal:{QUOTED}@/none", f"http://seal:{QUOTED}@localhost",
        f"redis+sentinel://:{SECRET}@localhost:1/m/0", f"redis+sentinel://localhost:1/m/0?sentinel_password={QUOTED}",
        f"redis://seal:[{SECRET}@localhost:1/0", f"redis://seal:{SECRET}?x#y@localhost:1/0", f"redis://u:{SECRET}@",
    ],
)  # fmt: skip
async def test_a_redis_url_is_never_shown_with_its_password(url: str) -> None:
    assert not tells(without_password(url))
    with pytest.raises(SealError) as refused:
        await _ask_redis(url)
    assert not tells(refused.value.message)
    assert isinstance(refused.value, Unavailable) or not tells(repr(refused.value.__cause__))


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql+psycopg://seal:{QUOTED}@127.0.0.1:1/db", f"postgresql://seal:{SECRET}@127.0.0.1:1/db",
        f"postgresql://seal:{QUOTED}@127.0.0.1:no/db", f"mysql://seal:{QUOTED}@h/db", f"seal:{SECRET}@h",
    ],
)  # fmt: skip
async def test_a_sql_url_is_never_shown_with_its_password(url: str) -> None:
    with pytest.raises(SealError) as refused:
        await _ask_sql(url)
    assert not tells(refused.value.message)
    assert isinstance(refused.value, Unavailable) or not tells(repr(refused.value.__cause__))


def test_a_callers_file_gone_bad_does_not_show_its_tokens(tmp_path: Path) -> None:
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    file = tmp_path / "callers.toml"
    for text in (
        f'[[caller]]\nname = "a"\nrole = "admin"\ntoken_sha256 = "{digest}"\ntoken = "{SECRET}"',
        f'x = "{SECRET}',
    ):
        file.write_text(text)
        with pytest.raises(InvalidConfig) as refused:
            CallersFile(file)
        assert not tells(refused.value.message)
        assert digest not in refused.value.message


START_EACH = """
import json, os, sys
from controller.__main__ import main
for settings in json.load(sys.stdin):
    os.environ.update(settings)
    print("exit code", main(["all"]))
"""


@pytest.mark.integration
def test_a_controller_that_cannot_start_shows_no_password(tmp_path: Path) -> None:
    """Neither in its log at the noisiest level, nor on its command line, nor in what its metrics say."""
    shared = {
        "SEAL_CONTROLLER_LOG_LEVEL": "debug",
        "SEAL_CONTROLLER_LISTEN": "127.0.0.1:0",
        "SEAL_CONTROLLER_REDIS_URL": f"redis://seal:{QUOTED}@127.0.0.1:1/0",
    }
    databases = (f"postgresql+psycopg://seal:{QUOTED}@127.0.0.1:1/db", f"sqlite:///{tmp_path}/r.db")
    starts = [
        shared | {"SEAL_CONTROLLER_LOG_FORMAT": log_format, "SEAL_CONTROLLER_DATABASE_URL": url}
        for log_format, url in itertools.product(("json", "console"), databases)
    ]
    done = subprocess.run(
        [sys.executable, "-c", START_EACH], cwd=ROOT, input=json.dumps(starts), capture_output=True, text=True,
        timeout=60, env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}"},
    )  # fmt: skip
    assert done.stdout.splitlines() == ["exit code 1"] * len(starts)
    assert re.findall(r"cannot start: (\w+) .* does not answer", done.stderr) == ["database", "Redis"] * 2
    assert not tells(done.stdout + done.stderr)
    assert not tells(generate_latest().decode())


async def test_a_token_is_in_no_log_and_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    from seal.controller.v1 import controller_pb2 as pb
    from seal.controller.v1 import controller_pb2_grpc

    from seal_cli import certs
    from sealkit.rpc.server import GrpcServer
    from sealkit.rpc.settings import ServerSettings
    from sealkit.rpc.tls import Identity
    from tests.contract.test_rpc_tls import Guarded

    caplog.set_level("DEBUG")
    certs.make(tmp_path, ["controller"], hosts=[], days=1)
    (tmp_path / "callers.toml").write_text('[[caller]]\nname = "root"\nrole = "admin"\ncertificate = "nobody"')
    place = tmp_path / "controller"
    server = GrpcServer(
        Guarded(CallersFile(tmp_path / "callers.toml")),
        ServerSettings(
            listen="127.0.0.1:0", tls_ca=str(place / "ca.crt"), tls_cert=str(place / "tls.crt"),
            tls_key=str(place / "tls.key"), tls_client_certificates=False,
        ),
    )  # fmt: skip
    await server.listen()
    await server.start()
    credentials = Identity(place / "ca.crt").channel_credentials(SECRET)
    async with grpc.aio.secure_channel(server.address.replace("127.0.0.1", "localhost"), credentials) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await controller_pb2_grpc.ControllerServiceStub(channel).ListPolicies(pb.ListPoliciesRequest(), timeout=5)
    await server.stop(0)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    shown = capsys.readouterr()
    said = str(refused.value) + shown.out + shown.err + caplog.text
    assert "refused" in said
    assert not tells(said)
    assert hashlib.sha256(SECRET.encode()).hexdigest() not in said


class _Compose(yaml.SafeLoader):
    """YAML with compose's own tags (`!override`), which mean nothing here."""


_Compose.add_multi_constructor("!", lambda loader, _, node: loader.construct_sequence(node))


def _containers() -> list[tuple[str, dict[str, Any]]]:
    files = [ROOT / "docker-compose.yml", *(ROOT / "deploy/docker").glob("*.yml")]
    return [(f"{file.name}: {name}", spec) for file in files
            for name, spec in (yaml.load(file.read_text(), _Compose).get("services") or {}).items()]  # fmt: skip


def _words(spec: Any) -> list[str]:
    if isinstance(spec, dict):
        return [f"{key}={value}" for key, value in spec.items()]
    return [str(word) for word in spec] if isinstance(spec, list) else [str(spec)]


_NAMED = re.compile(r"(?i)(password|passwd|token|secret|api_key|redis_url|database_url)[^=]*=\s*(?!\$\$\(cat )[^/\s]")
_IN_URL = re.compile(r"://[^/\s:@]*:[^/\s@]+@")


def test_no_container_has_a_secret_in_its_environment_or_command_line() -> None:
    """What `docker inspect` and `ps` show to anybody who may look."""
    found = _containers()
    assert len(found) > 8
    for name, spec in found:
        for key in ("environment", "command", "entrypoint"):
            for word in _words(spec.get(key) or []):
                allowed = "_FILE=" in word or "__FILE=" in word
                assert allowed or not _NAMED.search(word), f"{name}: {word}"
                assert not _IN_URL.search(word), f"{name}: {word}"


def test_secrets_and_keys_are_kept_out_of_git_and_of_images() -> None:
    ignored = (ROOT / ".gitignore").read_text().split()
    left_out = (ROOT / ".dockerignore").read_text()
    assert "secrets/" in ignored or "/secrets/" in ignored or "secrets" in ignored
    assert left_out.lstrip().startswith(("*", "#")) or "secrets" in left_out
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in tracked if name.endswith((".key", ".pem")) or name.startswith("secrets/")]


def test_a_url_that_is_wrong_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(InvalidConfig, match="%2F"):
        connect(f"redis://:{SECRET}@localhost:1/0")
