"""One stack in containers for all tests here: images built, healthy, observed; taken down at the end."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e.compose import stand_ins
from tests.e2e.compose.harness import ROOT, Harness, engine
from tests.e2e.compose.outside import Outside

HERE = Path(__file__).parent
_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ours = [item for item in items if HERE in item.path.parents]
    missing = engine() if ours else ""
    for item in ours:
        item.add_marker(pytest.mark.e2e)
        item.add_marker(pytest.mark.timeout(1800))
        if missing:
            item.add_marker(pytest.mark.skip(reason=f"no Docker Engine: {missing}"))


@pytest.fixture(scope="session")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    from sealkit.testing.tiny import make_tiny_model

    folder = tmp_path_factory.mktemp("compose")
    settings, told = stand_ins.images()
    wheels, torch = _torch()
    files = [HERE / "overlay.yml", *wheels]
    if "GRAFANA_IMAGE" not in settings:
        files.append(HERE / "no_grafana.yml")
        told.append("Grafana is left out")
    print("\ncompose:", "; ".join(told) or "all images are those that are pinned")  # noqa: T201
    for file in make_tiny_model(folder / "models/tiny", context=2048).iterdir():
        file.chmod(0o644)
    _impatient(folder)
    made = Harness(folder, settings | torch, files)
    made.sh("scripts/secrets.sh")
    made.compose("build", seconds=1800)
    made.down()
    try:
        made.up()
        yield made
        _tell_of_failures(made)
    finally:
        made.down()


@pytest.fixture
def outside(harness: Harness) -> Iterator[Outside]:
    """Starts client processes; ends those that are left."""
    made = Outside(harness)
    yield made
    made.end()


def _torch() -> tuple[list[Path], dict[str, str]]:
    """Where the images' torch is from: PyTorch's index of CPU builds, else the one that this machine's pip finds."""
    try:
        urllib.request.urlopen(f"{_CPU_INDEX}/torch/", timeout=5).close()
    except OSError:
        wheels = ROOT / "build/e2e/wheels"
        words = ["download", "-q", "--no-deps", "--only-binary=:all:", "--python-version=3.11", "-d", str(wheels)]
        platform = ["--platform=manylinux_2_28_x86_64", "torch==2.13.0"]
        if not list(wheels.glob("torch-*")):
            subprocess.run([sys.executable, "-m", "pip", *words, *platform], check=True)
        return [HERE / "wheels.yml"], {"E2E_WHEELS": str(wheels)}
    return [], {"TORCH_INDEX": _CPU_INDEX}


def _impatient(folder: Path) -> None:
    """Prometheus and Alertmanager as they are deployed, but quick. A scrape may take as long as its interval: on a busy
    machine not always less than two seconds."""
    watching, alerting = folder / "prometheus", folder / "alertmanager"
    for made in (watching, alerting):
        made.mkdir()
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    config["global"] |= {"scrape_interval": "5s", "evaluation_interval": "2s"}
    for job in config["scrape_configs"]:
        for found in job.get("dns_sd_configs", []):
            found["refresh_interval"] = "2s"
    (watching / "prometheus.yml").write_text(yaml.safe_dump(config))
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = "1s"
    (watching / "rules.yml").write_text(yaml.safe_dump(rules))
    route = yaml.safe_load((ROOT / "deploy/alertmanager/alertmanager.yml").read_text())
    route["route"] |= {"group_wait": "1s", "group_interval": "1s"}
    (alerting / "alertmanager.yml").write_text(yaml.safe_dump(route))


def _tell_of_failures(harness: Harness) -> None:
    log = os.environ.get("SEAL_E2E_LOG")
    if log:
        Path(log).write_text(harness.compose("logs", "--no-color", "--timestamps"))
