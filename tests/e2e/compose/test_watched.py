"""Prometheus and Alertmanager in their containers: every replica is found, and what is down is told."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from tests.e2e.compose.harness import Harness, wait

_PROMETHEUS, _ALERTMANAGER = "http://prometheus:9090/api/v1", "http://alertmanager:9093/api/v2"
_ONE_EACH = {f"seal-{name}": 1 for name in ("controller", "worker", "generator", "trainer", "evaluator", "gateway")}


def test_every_replica_is_found_and_up(harness: Harness) -> None:
    harness.up("--scale", "trainer=2", "--scale", "worker=1")
    wanted = Counter(_ONE_EACH | {"seal-trainer": 2, "prometheus": 1})
    wait(lambda: up(harness) == wanted, 60, lambda: str(up(harness)))
    harness.up("--scale", "trainer=1", "--scale", "worker=1")
    wait(lambda: up(harness) == wanted - Counter({"seal-trainer": 1}), 60, lambda: str(up(harness)))


def up(harness: Harness) -> Counter[str]:
    targets = harness.inside("controller", f"{_PROMETHEUS}/targets?state=active")["data"]["activeTargets"]
    return Counter(target["labels"]["job"] for target in targets if target["health"] == "up")


def test_rules_are_loaded(harness: Harness) -> None:
    groups = harness.inside("controller", f"{_PROMETHEUS}/rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert "SealTargetDown" in {rule["name"] for rule in rules}
    assert {rule["health"] for rule in rules} == {"ok"}


def test_a_service_that_is_down_is_told_to_alertmanager_and_so_is_its_return(harness: Harness) -> None:
    harness.up()
    harness.compose("stop", "trainer")
    wait(lambda: "seal-trainer" in missed(harness), 90, lambda: shown(harness))
    harness.up()
    # Prometheus tells it at once, and again after a minute. Untold, the alert would end by itself after three or four.
    wait(lambda: "seal-trainer" not in missed(harness), 150, lambda: shown(harness))


def missed(harness: Harness) -> set[str]:
    """Jobs that Alertmanager knows to be down, or not to be found: what a container without a name is to Prometheus
    depends on whether the machine's name server answers."""
    names = {"SealTargetDown", "SealServiceMissing"}
    return {one["labels"].get("job", "") for one in alerts(harness) if one["labels"]["alertname"] in names}


def alerts(harness: Harness) -> list[dict[str, Any]]:
    return list(harness.inside("controller", f"{_ALERTMANAGER}/alerts?active=true"))


def shown(harness: Harness) -> str:
    """Alertmanager's alerts, then Prometheus's, then the targets that it cannot read."""
    found = harness.inside("controller", f"{_PROMETHEUS}/alerts")["data"]["alerts"]
    targets = harness.inside("controller", f"{_PROMETHEUS}/targets?state=active")["data"]["activeTargets"]
    failing = [target for target in targets if target["health"] != "up"]
    return "\n".join(json.dumps(one) for one in (alerts(harness), found, failing))
