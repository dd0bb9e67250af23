"""The stack in containers is locked: what docker-compose.yml and the Dockerfile must never lose."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from seal_cli import certs
from sealkit.rpc.server import ServerSettings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "deploy/docker/Dockerfile").read_text()
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
LASTING = {name: service for name, service in SERVICES.items() if name != "prepare"}
OURS = ("controller", "gateway", "worker", "generator", "trainer", "evaluator")


def plain(value: str) -> str:
    """A value as Compose reads it where no variable is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_runs_with_more_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    if name == "prepare":  # gives new volumes to the others' user, on no network, and ends
        assert (service["cap_add"], service["network_mode"]) == (["CHOWN"], "none")
    else:
        assert "cap_add" not in service
        assert int(plain(service["user"]).split(":")[0]) > 0


def test_only_what_callers_and_people_open_is_published_and_on_loopback() -> None:
    published = {name: [plain(port) for port in s["ports"]] for name, s in SERVICES.items() if "ports" in s}
    assert published == {
        "controller": ["127.0.0.1:50050:50050"], "gateway": ["127.0.0.1:8000:8000"], "grafana": ["127.0.0.1:3000:3000"],
    }  # fmt: skip


def test_networks_but_that_of_the_published_lead_nowhere() -> None:
    assert {name for name, network in COMPOSE["networks"].items() if not (network or {}).get("internal")} == {"front"}
    on_front = {name for name, service in SERVICES.items() if "front" in service.get("networks", [])}
    assert on_front == {"controller", "gateway", "grafana"}
    with_the_record = {name for name, service in SERVICES.items() if "record" in service.get("networks", [])}
    assert with_the_record == {"postgres", "controller", "worker"}


def test_secrets_are_files_and_in_no_variable() -> None:
    assert all(set(secret) == {"file"} for secret in COMPOSE["secrets"].values())
    used = {secret for service in SERVICES.values() for secret in service.get("secrets", [])}
    overlaid = (ROOT / "deploy/docker/vllm.yml").read_text()
    assert {*used, *re.findall(r"secrets: \[(\w+)\]", overlaid)} == set(COMPOSE["secrets"])
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKEN|API_KEY", variable):
                assert str(value).startswith("/run/secrets/"), f"{name} {variable}"


def test_images_are_pinned() -> None:
    for name, service in SERVICES.items():
        _, _, tag = plain(service["image"]).rpartition(":")
        assert re.search(r"\d", tag), f"{name}: {service['image']}"
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.\d+-", DOCKERFILE, re.MULTILINE)
    installed = re.findall(
        r"^[^#\n]*pip install (.*)", DOCKERFILE + (ROOT / "deploy/docker/install.sh").read_text(), re.MULTILINE
    )
    assert all("-c constraints.txt" in words or "--no-deps" in words for words in installed)


@pytest.mark.parametrize("name", LASTING)
def test_who_is_needed_is_waited_for_and_everybody_says_whether_it_is_well(name: str) -> None:
    service = LASTING[name]
    needed = service.get("depends_on", {})
    wanted = {"prepare": "service_completed_successfully"}
    assert all(how["condition"] == wanted.get(on, "service_healthy") for on, how in needed.items())
    assert needed
    assert {"test", "start_period", "start_interval"} <= service["healthcheck"].keys()
    if name in OURS:
        assert service["healthcheck"]["test"][:3] == ["CMD", "seal", "health"]


@pytest.mark.parametrize("name", LASTING)
def test_there_is_time_to_drain(name: str) -> None:
    grace = ServerSettings.model_fields["grace_seconds"].default
    assert int(LASTING[name]["stop_grace_period"].removesuffix("s")) > grace


@pytest.mark.parametrize("name", OURS)
def test_our_services_speak_tls_both_ways_and_have_the_store_and_the_model_as_they_need(name: str) -> None:
    service = SERVICES[name]
    prefix = "CONTROLLER" if name in ("controller", "worker") else name.upper()
    set_ = service["environment"]
    assert {set_[f"SEAL_{prefix}_TLS_{part}"] for part in ("CA", "CERT", "KEY")} == {
        "/run/tls/ca.crt", "/run/tls/tls.crt", "/run/tls/tls.key",
    }  # fmt: skip
    mounts = [plain(mount) for mount in service["volumes"]]
    assert f"./secrets/tls/{name}:/run/tls:ro" in mounts
    assert all(mount.endswith(":ro") for mount in mounts if not mount.startswith("store:"))


def test_whoever_has_certificates_is_issued_some() -> None:
    wanting = {name for name, s in SERVICES.items() if any("/run/tls" in plain(v) for v in s.get("volumes", []))}
    assert wanting == set(certs.SERVICES)


def test_the_record_and_the_queue_are_reached_with_tls_alone() -> None:
    rules = [line.split() for line in (ROOT / "deploy/docker/pg_hba.conf").read_text().splitlines() if line[0] != "#"]
    over_the_network = [rule for rule in rules if rule[0] != "local"]
    assert over_the_network == [["hostssl", "all", "all", "all", "scram-sha-256", "clientcert=verify-ca"]]
    assert "ssl=on" in SERVICES["postgres"]["command"]
    redis = SERVICES["redis"]["command"]
    assert redis[redis.index("--port") + 1] == "0"
    assert "--aclfile" in redis


def test_images_end_as_somebody_with_a_health_check_and_labels() -> None:
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)
    for target in ("controller", "gateway", "generator", "trainer", "evaluator"):
        (stage,) = (text for text in stages if re.match(rf"\S+ AS {target}\n", text))
        below = (
            stage
            if target in ("controller", "gateway")
            else next(s for s in stages if s.startswith("model-packages AS model-s"))
        )
        assert "USER 10001:10001" in below
        assert "org.opencontainers.image.revision" in below
        assert f'image.title="seal-{target}"' in stage
        assert re.search(r"HEALTHCHECK .*\[\"seal\", \"health\"", stage)
    assert not re.search(r"apt-get|build-essential|gcc", DOCKERFILE)


def test_what_is_sent_to_the_builder_is_listed() -> None:
    lines = (ROOT / ".dockerignore").read_text().split()
    assert lines[0] == "*"
    assert not [line for line in lines if re.search(r"secrets|\.env|tests|\.git", line)]
    copied = {
        word for words in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE) for word in words.split()
    }
    assert copied - {line.removeprefix("!") for line in lines} == set(), "copied, but not sent"


def test_only_the_trainer_writes_adapters() -> None:
    for name in ("generator", "evaluator"):
        mounts = [plain(mount) for mount in SERVICES[name]["volumes"]]
        (store,) = (mount for mount in mounts if mount.startswith("store:"))
        assert "ro" in store.split(":")[2].split(","), name
