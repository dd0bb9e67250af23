"""What `kubectl kustomize` makes of deploy/kubernetes, for tests; they are skipped where there is no kubectl of 2024 or
later (kustomize 5)."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/kubernetes"
OVERLAYS = ("cpu", "gpu")
Manifest = dict[str, Any]


def need_kubectl() -> None:
    """Skips the test where kubectl is missing or too old to build this."""
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl here")
    version = json.loads(_output("kubectl", "version", "--client", "-o", "json"))
    if int(version.get("kustomizeVersion", "v0").removeprefix("v").partition(".")[0]) < 5:
        pytest.skip("this kubectl brings no kustomize 5")


@cache
def built(folder: str) -> tuple[Manifest, ...]:
    """Every manifest of `deploy/kubernetes/<folder>`, as the cluster would get it."""
    need_kubectl()
    return build(FOLDER / folder)


def build(folder: Path) -> tuple[Manifest, ...]:
    """Every manifest of a folder."""
    return tuple(yaml.safe_load_all(_output("kubectl", "kustomize", str(folder))))


def of_kind(folder: str, kind: str) -> dict[str, Manifest]:
    return {manifest["metadata"]["name"]: manifest for manifest in built(folder) if manifest["kind"] == kind}


def workloads(folder: str) -> dict[str, Manifest]:
    """What makes pods, by name."""
    return of_kind(folder, "Deployment") | of_kind(folder, "StatefulSet") | of_kind(folder, "Job")


def pod(workload: Manifest) -> Manifest:
    return dict(workload["spec"]["template"]["spec"])


def container(workload: Manifest) -> Manifest:
    (only,) = pod(workload)["containers"]
    return dict(only)


def ports(workload: Manifest) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container(workload).get("ports", ())}


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
