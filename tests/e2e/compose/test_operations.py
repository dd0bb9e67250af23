"""What an operator does while runs go on: more replicas, new certificates and passwords, backup, restore, upgrade."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography import x509

from tests.e2e.compose.harness import Harness, wait
from tests.e2e.compose.outside import Outside


async def test_more_replicas_share_a_run(harness: Harness, outside: Outside) -> None:
    harness.up("--scale", "trainer=2", "--scale", "worker=2")
    before = {one: work(harness, one) for service in ("trainer", "worker") for one in harness.containers(service)}
    assert len(before) == 4
    await outside.nothing_lost(outside.start(contexts=8))
    after = {one: work(harness, one) for one in before}
    assert all(after[one] > before[one] for one in before), (before, after)
    harness.up("--scale", "trainer=1", "--scale", "worker=1")


def work(harness: Harness, container: str) -> float:
    """What a trainer has trained or a worker has brought to its end, by its own metrics."""
    found = harness.inspect(container)
    port = 9102 if "trainer" in found["Name"] else 9100
    address = found["NetworkSettings"]["Networks"][f"{harness.env['COMPOSE_PROJECT_NAME']}_inside"]["IPAddress"]
    lines = str(harness.inside("controller", f"http://{address}:{port}/metrics")).splitlines()
    counted = ("seal_trainer_jobs_ended_total", "seal_trials_total")
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(counted))


async def test_certificates_are_replaced_under_a_run(harness: Harness, outside: Outside) -> None:
    old = serial(harness)
    watched = outside.start(contexts=100)
    watched.goes_on(2)
    assert watched.left
    harness.sh("scripts/rotate.sh", "certificates")
    watched.goes_on()
    wait(lambda: serial(harness) != old, 30, lambda: "the controller shows its old certificate")
    await outside.nothing_lost(watched)
    await outside.nothing_lost(outside.start(contexts=1))


def serial(harness: Harness) -> int:
    """That of the certificate which the published port shows."""
    shown = ssl.get_server_certificate(("localhost", harness.port), timeout=10)
    return x509.load_pem_x509_certificate(shown.encode()).serial_number


async def test_passwords_are_replaced_under_a_run(harness: Harness, outside: Outside) -> None:
    names = ("postgres_password", "redis.acl", "controller_redis_url", "controller_database_url")
    old = {name: (harness.secrets / name).read_text() for name in names}
    watched = outside.start(contexts=100)
    watched.goes_on(2)
    assert watched.left
    harness.sh("scripts/rotate.sh", "passwords")
    watched.goes_on()
    assert not [name for name in names if (harness.secrets / name).read_text() == old[name]]
    await outside.nothing_lost(watched)


async def test_a_backup_of_a_run_under_way_goes_on_in_an_empty_stack(
    harness: Harness, outside: Outside, tmp_path: Path
) -> None:
    watched = outside.start(contexts=60)
    watched.goes_on(6)
    assert watched.left
    harness.sh("scripts/backup.sh", str(tmp_path))
    watched.goes_on(1)
    run = watched.run
    outside.end()
    harness.down()
    harness.sh("scripts/restore.sh", str(tmp_path))
    harness.up()
    trials = await outside.nothing_lost(outside.watch(run), again=True)
    assert len(trials) > 180
    with pytest.raises(AssertionError, match="the database is not empty"):
        harness.sh("scripts/restore.sh", str(tmp_path))


async def test_an_upgrade_brings_the_record_up_and_a_backup_takes_it_back(
    harness: Harness, outside: Outside, tmp_path: Path
) -> None:
    """The version before is stood for by its schema: the last migration is taken back, and made by the new program."""
    new = schema(harness)
    watched = outside.start(contexts=15)
    watched.goes_on(3)
    assert watched.left
    harness.compose("stop", "controller", "worker")
    harness.compose("run", "--rm", "--no-deps", "-T", "controller", "python", "-c", _DOWNGRADE)
    old = schema(harness)
    assert old < new
    harness.sh("scripts/backup.sh", str(tmp_path))
    harness.up()
    assert schema(harness) == new
    await outside.nothing_lost(watched, again=True)

    harness.down()
    harness.sh("scripts/restore.sh", str(tmp_path))
    assert schema(harness) == old
    harness.up()
    await outside.nothing_lost(outside.watch(watched.run))


def schema(harness: Harness) -> str:
    asked = "select version_num from alembic_version"
    return harness.compose("exec", "-T", "postgres", "psql", "-U", "seal", "-d", "seal", "-Atc", asked).strip()


_DOWNGRADE = """
from pathlib import Path
from alembic import command
from alembic.config import Config
from controller.db import migrations
from controller.settings import ControllerSettings
from sqlalchemy import create_engine
config = Config()
config.set_main_option("script_location", str(Path(migrations.__file__).parent))
with create_engine(ControllerSettings().database_url).begin() as connection:
    config.attributes["connection"] = connection
    command.downgrade(config, "-1")
"""
