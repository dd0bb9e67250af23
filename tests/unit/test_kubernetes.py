"""The Kubernetes manifests are whole: known fields only, names that refer to something, nobody runs as root."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "deploy/kubernetes"
_OTHERS = ("Kustomization", "ScaledObject", "ServiceMonitor")
"""Kinds that Kubernetes itself does not know."""


def documents() -> list[dict[str, Any]]:
    files = sorted(FOLDER.glob("*/*.yaml"))
    return [found for file in files for found in yaml.safe_load_all(file.read_text()) if found]


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {d["metadata"]["name"]: d for d in documents() if d["kind"] == kind}


@pytest.mark.parametrize("manifest", [d for d in documents() if d["kind"] not in _OTHERS], ids=lambda d: d["kind"])
def test_manifests_fit_the_schema(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, "1.33", strict=True)


def test_every_file_is_part_of_a_kustomization() -> None:
    for folder in ("base", "cpu", "gpu"):
        kustomization = yaml.safe_load((FOLDER / folder / "kustomization.yaml").read_text())
        there = {path.name for path in (FOLDER / folder).glob("*.yaml")} - {"kustomization.yaml"}
        assert there == {name for name in kustomization["resources"] if not name.startswith("..")}


def test_every_deployment_is_locked_and_probed() -> None:
    for name, deployment in of_kind("Deployment").items():
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"], name
        assert container["securityContext"]["readOnlyRootFilesystem"], name
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys(), name
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}, name


def test_services_and_scalers_point_to_deployments() -> None:
    deployments = set(of_kind("Deployment"))
    assert {s["spec"]["selector"]["app.kubernetes.io/name"] for s in of_kind("Service").values()} == deployments
    assert {s["spec"]["scaleTargetRef"]["name"] for s in of_kind("ScaledObject").values()} <= deployments
