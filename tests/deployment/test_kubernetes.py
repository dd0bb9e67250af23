"""What deploy/kubernetes builds is whole: known fields only, names that refer to something, settings that the services
have, ports that they listen on, and no more calls than docs/architecture.md has."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from pydantic_settings import BaseSettings
from seal.evaluator.v1 import evaluator_pb2

from controller.settings import ControllerSettings, WorkerSettings
from deploy.kubernetes import generate
from evaluator_svc.settings import EvaluatorSettings
from gateway.settings import GatewaySettings
from generator_svc.settings import GeneratorSettings
from tests.deployment.kubernetes_built import (
    FOLDER,
    OVERLAYS,
    ROOT,
    build,
    built,
    container,
    need_kubectl,
    of_kind,
    pod,
    ports,
    workloads,
)
from tests.deployment.kubernetes_kinds import KINDS
from tests.deployment.kubernetes_network import Peer, connections
from tests.deployment.test_observability import unknown
from trainer_svc.settings import TrainerSettings

BUILDS = (*OVERLAYS, "databases", "model", "certificates")
SETTINGS: dict[str, type[BaseSettings]] = {
    "controller": ControllerSettings,
    "gateway": GatewaySettings,
    "worker": WorkerSettings,
    "generator": GeneratorSettings,
    "trainer": TrainerSettings,
    "evaluator": EvaluatorSettings,
}
MODELS = ("generator", "trainer", "evaluator")


@pytest.mark.parametrize("folder", BUILDS)
def test_every_manifest_has_known_fields_only(folder: str) -> None:
    for manifest in built(folder):
        if schema := KINDS.get(manifest["kind"]):
            jsonschema.validate(manifest, schema)
        else:
            kubernetes_validate.validate(manifest, "1.33", strict=True)
        assert manifest["kind"] == "Namespace" or manifest["metadata"]["namespace"] == "seal"


def test_every_file_is_built() -> None:
    for folder in ("base", *BUILDS, "observability"):
        kustomization = yaml.safe_load((FOLDER / folder / "kustomization.yaml").read_text())
        named = {*kustomization["resources"], *(patch.get("path") for patch in kustomization.get("patches", ()))}
        assert {file.name for file in (FOLDER / folder).glob("*.yaml")} - {"kustomization.yaml"} <= named


@pytest.mark.parametrize("folder", [*OVERLAYS, "model"])
def test_every_pod_is_locked(folder: str) -> None:
    for name, workload in workloads(folder).items():
        spec, only = pod(workload), container(workload)
        assert spec["securityContext"]["runAsNonRoot"], name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["fsGroup"] == spec["securityContext"]["runAsGroup"], name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False, name
        assert only["securityContext"] == {
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert {"cpu", "memory"} <= only["resources"]["requests"].keys(), name
        assert "memory" in only["resources"]["limits"], name
        claimed = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", ())}
        volumes = {volume["name"] for volume in spec["volumes"]} | claimed
        assert {mount["name"] for mount in only["volumeMounts"]} == volumes, name
        for volume in spec["volumes"]:
            assert "secret" not in volume or volume["secret"]["defaultMode"] == 0o440, name


@pytest.mark.parametrize("folder", OVERLAYS)
def test_every_pod_is_probed_spread_and_may_be_drained_one_at_a_time(folder: str) -> None:
    for name, workload in workloads(folder).items():
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container(workload).keys(), name
    budgets = {
        budget["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"]: budget["spec"]["maxUnavailable"]
        for budget in of_kind(folder, "PodDisruptionBudget").values()
    }
    assert budgets == dict.fromkeys(SETTINGS, 1)
    assert all(pod(deployment)["topologySpreadConstraints"] for deployment in of_kind(folder, "Deployment").values())


def image_variables(target: str) -> dict[str, str]:
    """What the Dockerfile's stage for a service sets."""
    text = (ROOT / "deploy/docker/Dockerfile").read_text()
    stage = text.partition(f" AS {target}\n")[2].partition("\nFROM ")[0]
    return dict(re.findall(r"(SEAL_\w+)=(\S+)", stage))


@pytest.mark.parametrize("folder", OVERLAYS)
@pytest.mark.parametrize("name", SETTINGS)
def test_services_read_every_variable_and_listen_where_the_manifests_say(
    folder: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment, settings = of_kind(folder, "Deployment")[name], SETTINGS[name]
    only, prefix = container(deployment), str(settings.model_config.get("env_prefix"))
    set_here = {variable["name"]: variable["value"] for variable in only["env"] if "value" in variable}
    own = {variable for variable in set_here if variable.startswith("SEAL_") and not variable.startswith("SEAL_TLS_")}
    known = {(prefix + field).upper() for field in settings.model_fields}
    assert own <= known
    secrets = {mount["name"] for mount in only["volumeMounts"] if mount["mountPath"] == "/run/secrets"}
    for volume in pod(deployment)["volumes"]:
        if volume["name"] in secrets:
            assert {item["path"] for item in volume["secret"].get("items", ())} <= known

    image = only["image"].partition(":")[0].removeprefix("seal-")
    for variable in [variable for variable in os.environ if variable.startswith("SEAL_")]:
        monkeypatch.delenv(variable)
    for variable, value in {**image_variables(image), **set_here}.items():
        monkeypatch.setenv(variable, value)
    read = settings().model_dump()
    kind, at = ("https", "https://localhost") if name == "gateway" else ("grpc", "localhost")
    assert ports(deployment) == {
        kind: int(read["listen"].rpartition(":")[2]),
        "metrics": int(read["metrics_listen"].rpartition(":")[2]),
    }
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert only[probe]["exec"]["command"][:3] == ["seal", "health", f"{at}:{ports(deployment)[kind]}"]
    assert pod(deployment)["terminationGracePeriodSeconds"] >= read["grace_seconds"] + 10
    mounted = [mount["mountPath"] for mount in only["volumeMounts"]]
    for path in (read["tls_ca"], read["tls_cert"], read["tls_key"], read.get("callers_file"), read.get("model")):
        assert not path or str(Path(path).parent) in mounted


@pytest.mark.parametrize("folder", OVERLAYS)
def test_services_lead_to_ports_and_the_controller_to_services(folder: str) -> None:
    targets = {}
    services = of_kind(folder, "Service")
    for name, service in services.items():
        assert service["spec"]["selector"] == {"app.kubernetes.io/name": name}
        at = ports(workloads(folder)[name])
        for port in service["spec"]["ports"]:
            assert port["port"] == at[port.get("targetPort", port["name"])], name
            targets[f"{name}:{port['port']}"] = "clusterIP" in service["spec"]
    for caller in ("controller", "worker"):
        variables = {one["name"]: one["value"] for one in container(workloads(folder)[caller])["env"]}
        for model in MODELS:
            assert targets[variables[f"SEAL_CONTROLLER_{model.upper()}"]], "the controller balances by itself"
    assert not targets["controller:50050"], "callers do not"
    assert {name for name, service in services.items() if "metrics" in str(service)} == set(SETTINGS)


def mounted_secrets(folder: str) -> dict[str, set[str]]:
    """The keys that pods want of each Secret; none for one that is mounted whole."""
    found: dict[str, set[str]] = {}
    for workload in workloads(folder).values():
        for volume in pod(workload)["volumes"]:
            if secret := volume.get("secret"):
                keys = found.setdefault(secret["secretName"], set())
                keys |= {item["key"] for item in secret.get("items", ())}
                if secret["secretName"].endswith("-tls"):
                    keys |= {"ca.crt", "tls.crt", "tls.key"}
    return found


def test_the_script_makes_every_secret_that_is_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_kubectl()
    for name in ("scripts", "deploy/kubernetes"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    for name in ("SEAL_SECRETS", "SEAL_HOST", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABASE_URL", "postgresql+psycopg://me@elsewhere/seal")
    done = subprocess.run([tmp_path / "deploy/kubernetes/secrets.sh"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = {found["metadata"]["name"]: found for found in yaml.safe_load_all(done.stdout) if found}
    assert {found["metadata"]["namespace"] for found in made.values()} == {"seal"}
    assert made["seal-record"]["data"]["SEAL_CONTROLLER_DATABASE_URL"] == (
        "cG9zdGdyZXNxbCtwc3ljb3BnOi8vbWVAZWxzZXdoZXJlL3NlYWw="
    )
    for folder in OVERLAYS:
        for name, keys in mounted_secrets(folder).items():
            assert keys <= made[name]["data"].keys(), name
    # What is mounted whole is read by these names.
    assert made["seal-record"]["data"].keys() == {"SEAL_CONTROLLER_DATABASE_URL", "SEAL_CONTROLLER_REDIS_URL"}
    assert made["seal-callers"]["data"].keys() == {"callers.toml"}
    read = str(of_kind("cpu", "StatefulSet"))
    for name in ("seal-postgres", "seal-redis"):
        assert all(key in read for key in made[name]["data"])


def test_cert_manager_makes_every_certificate_that_is_mounted() -> None:
    made = {found["spec"]["secretName"]: found["spec"] for found in of_kind("certificates", "Certificate").values()}
    wanted = {name for folder in OVERLAYS for name in mounted_secrets(folder) if name.endswith("-tls")}
    assert wanted | {"seal-operator-tls", "seal-authority"} == made.keys()
    for secret in wanted:
        name = secret.removeprefix("seal-").removesuffix("-tls")
        assert {name, "localhost"} <= set(made[secret]["dnsNames"])
        assert made[secret]["commonName"] == name
        assert made[secret]["issuerRef"] == {"name": "seal-authority"}


def test_the_overlay_in_the_docs_builds_with_its_own_images_and_model(tmp_path: Path) -> None:
    need_kubectl()
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    own = tmp_path / "mine"
    own.mkdir()
    text = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/kubernetes.md").read_text(), re.DOTALL)
    (own / "kustomization.yaml").write_text(text[0])
    manifests = [found for found in build(own) if "template" in found.get("spec", {})]
    images = {container(found)["image"] for found in manifests}
    assert {image for image in images if "seal-" in image} == {
        f"registry.example/seal-{name}:0.1.0" for name in ("controller", "gateway", "generator", "trainer", "evaluator")
    }
    (job,) = [found for found in manifests if found["kind"] == "Job"]
    assert container(job)["args"][:3] == ["hf", "download", "Qwen/Qwen2.5-7B-Instruct"]


@pytest.mark.parametrize("folder", [*OVERLAYS, "model"])
def test_images_are_those_of_the_compose_stack(folder: str) -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    there = {re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", service["image"]) for service in compose.values()}
    assert {container(workload)["image"] for workload in workloads(folder).values()} <= there


def test_networks_allow_the_calls_of_the_architecture_and_no_others() -> None:
    outside = [
        Peer("caller", namespace=(("seal-callers", "true"),)),
        Peer("prometheus", namespace=(("kubernetes.io/metadata.name", "monitoring"),)),
        Peer("stranger", namespace=(("kubernetes.io/metadata.name", "default"),)),
        Peer("internet", ports=(("https", 443),), namespace=()),
        Peer("names", ports=(("dns", 53),), namespace=(("kubernetes.io/metadata.name", "kube-system"),)),
    ]
    pods = [
        Peer(name, tuple(sorted(workload["spec"]["template"]["metadata"]["labels"].items())), tuple(at.items()))
        for name, workload in (workloads("cpu") | workloads("model")).items()
        for at in [ports(workload)]
    ]
    policies = [*of_kind("cpu", "NetworkPolicy").values(), *of_kind("model", "NetworkPolicy").values()]
    allowed = {
        ("caller", "controller", 50050),
        ("caller", "gateway", 8000),
        ("gateway", "controller", 50050),
        ("controller", "generator", 50051),
        ("controller", "trainer", 50052),
        ("controller", "evaluator", 50053),
        ("worker", "generator", 50051),
        ("worker", "trainer", 50052),
        ("worker", "evaluator", 50053),
        ("controller", "postgres", 5432),
        ("worker", "postgres", 5432),
        ("worker", "redis", 6379),
        ("fetch-model", "internet", 443),
        *((peer.name, "names", 53) for peer in pods),
        *(("prometheus", name, ports(workloads("cpu")[name])["metrics"]) for name in SETTINGS),
    }
    assert set(connections(policies, [*pods, *outside])) == allowed


def test_scaling_asks_for_metrics_that_exist_and_counts_what_a_replica_takes() -> None:
    deployments, queries = of_kind("gpu", "Deployment"), {}
    for name, scaled in of_kind("gpu", "ScaledObject").items():
        assert scaled["spec"]["scaleTargetRef"]["name"] == name
        assert "replicas" not in deployments[name]["spec"], "applying again would undo what KEDA decided"
        for trigger in scaled["spec"]["triggers"]:
            assert unknown(trigger["metadata"]["query"]) == set()
            assert f'namespace="{scaled["metadata"]["namespace"]}"' in trigger["metadata"]["query"]
            queries[name, trigger["metadata"]["query"]] = int(trigger["metadata"]["threshold"])
    assert queries["worker", 'max(seal_queue_depth{namespace="seal"})'] == WorkerSettings().worker_concurrency
    assert (
        queries["trainer", 'sum(seal_trainer_jobs{namespace="seal"})']
        == TrainerSettings.model_fields["max_jobs"].default
    )
    (evaluations,) = [query for name, query in queries if name == "evaluator"]
    service = evaluator_pb2.DESCRIPTOR.services_by_name["EvaluatorService"]
    assert f'method="/{service.full_name}/{service.methods_by_name["Evaluate"].name}"' in evaluations


def test_prometheus_and_grafana_get_what_the_compose_stack_has() -> None:
    assert generate.main(["--check"]) == 0
    (rules,) = of_kind("gpu", "PrometheusRule").values()
    assert rules["spec"] == yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text())
    (monitor,) = of_kind("gpu", "ServiceMonitor").values()
    (endpoint,) = monitor["spec"]["endpoints"]
    names = {
        service["metadata"]["labels"]["app.kubernetes.io/name"]
        for service in of_kind("gpu", "Service").values()
        if monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    }
    jobs = {endpoint["relabelings"][0]["replacement"].replace("$1", name) for name in names}
    scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    assert jobs == {job["job_name"] for job in scraped if job["job_name"].startswith("seal-")}
    maps = of_kind("gpu", "ConfigMap")
    boards = {path.name: path.read_text() for path in (ROOT / "deploy/grafana/dashboards").glob("*.json")}
    assert maps["seal-dashboards"]["data"] == boards
    assert maps["seal-dashboards"]["metadata"]["labels"]["grafana_dashboard"] == "1"
    (source,) = yaml.safe_load(maps["seal-datasource"]["data"]["seal.yaml"])["datasources"]
    assert all(f'"uid": "{source["uid"]}"' in text for text in boards.values())


@pytest.mark.parametrize("folder", OVERLAYS)
def test_only_the_trainer_writes_adapters_and_nobody_writes_models(folder: str) -> None:
    writable = {
        (name, mount["name"])
        for name in MODELS
        for mount in container(of_kind(folder, "Deployment")[name])["volumeMounts"]
        if not mount.get("readOnly")
    }
    assert writable == {("trainer", "store"), *((name, "tmp") for name in MODELS)}


def test_threads_are_the_cores_that_a_pod_has() -> None:
    for name in MODELS:
        only = container(of_kind("cpu", "Deployment")[name])
        (threads,) = [variable for variable in only["env"] if variable["name"] == "OMP_NUM_THREADS"]
        assert threads["valueFrom"] == {"resourceFieldRef": {"resource": "limits.cpu"}}
        assert int(only["resources"]["limits"]["cpu"]) >= int(only["resources"]["requests"]["cpu"])
        assert container(of_kind("gpu", "Deployment")[name])["resources"]["limits"]["nvidia.com/gpu"] == 1
