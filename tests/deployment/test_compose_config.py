"""`docker compose config` takes the stack with every profile and every file that is laid over it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any

import pytest

from tests.e2e.readme import ROOT

_COMPOSE = (
    shutil.which("docker")
    and not subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode
)
pytestmark = pytest.mark.skipif(not _COMPOSE, reason="no docker compose here")

ALWAYS = {"prepare", "redis", "postgres", "controller", "worker", "gateway"}
MODELS = {"generator", "trainer", "evaluator"}


def config(files: list[str], profiles: list[str]) -> dict[str, dict[str, Any]]:
    """The services that Compose would start, as it understands them; it must find nothing to warn of."""
    chosen = [word for file in ["docker-compose.yml", *files] for word in ("-f", file)]
    chosen += [word for profile in profiles for word in ("--profile", profile)]
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("SEAL_", "COMPOSE_"))}
    words = ["docker", "compose", *chosen, "config", "--format", "json"]
    done = subprocess.run(words, cwd=ROOT, env=plain, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return dict(json.loads(done.stdout)["services"])


def gpus(service: dict[str, Any]) -> int:
    return len(service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", []))


def test_cpu_reserves_no_gpu() -> None:
    found = config([], ["cpu"])
    assert found.keys() == ALWAYS | MODELS
    assert not any(gpus(service) for service in found.values())


def test_gpu_gives_one_to_each_that_holds_a_model() -> None:
    found = config(["deploy/docker/gpu.yml"], ["gpu"])
    assert {name for name, service in found.items() if gpus(service)} == MODELS


def test_observability() -> None:
    assert config([], ["observability"]).keys() == ALWAYS | {"prometheus", "alertmanager", "grafana"}


def test_vllm_is_asked_by_generator_and_evaluator_with_its_key_over_tls() -> None:
    found = config(["deploy/docker/gpu.yml", "deploy/docker/vllm.yml"], ["gpu", "vllm"])
    assert gpus(found["vllm"]) == 1
    for name in ("generator", "evaluator"):
        prefix = f"SEAL_{name.upper()}"
        asked = found[name]["environment"]
        assert asked[f"{prefix}_BACKEND"] == "vllm"
        assert asked[f"{prefix}_ENDPOINT_URL"] == "https://vllm:8000/v1"
        assert asked["SSL_CERT_FILE"] == asked["SEAL_TLS_CA"]
        assert {secret["source"] for secret in found[name]["secrets"]} == {"endpoint_key"}
        assert found[name]["depends_on"]["vllm"]["condition"] == "service_healthy"
    adapters = {m["target"]: m.get("read_only", False) for m in found["vllm"]["volumes"]}
    assert adapters["/served"] is True, "vLLM reads adapters and writes none"
    rank = int(found["generator"]["environment"]["SEAL_GENERATOR_VLLM_MAX_RANK"])
    assert f"--max-lora-rank={rank}" in found["vllm"]["command"]
    slots = sum(int(found[n]["environment"][f"SEAL_{n.upper()}_VLLM_SLOTS"]) for n in ("generator", "evaluator"))
    assert f"--max-loras={slots}" in found["vllm"]["command"]


def test_tgi_is_asked_by_the_generator_alone_on_a_network_of_their_own() -> None:
    found = config(["deploy/docker/gpu.yml", "deploy/docker/tgi.yml"], ["gpu", "tgi"])
    assert found["generator"]["environment"]["SEAL_GENERATOR_BACKEND"] == "tgi"
    assert "SEAL_EVALUATOR_BACKEND" not in found["evaluator"]["environment"]
    assert {name for name, service in found.items() if "sampling" in service.get("networks", {})} == {
        "tgi",
        "generator",
    }
    assert set(found["tgi"]["networks"]) == {"sampling"}
