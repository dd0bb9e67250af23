"""Every container dies once and is cut off once in the middle of a run; the stack stops in the middle of another."""

from __future__ import annotations

import random
import time

from tests.e2e.compose.harness import EVERY, Harness, wait
from tests.e2e.compose.outside import Outside

_AWAY = 4.0
"""Seconds that a container is dead or cut off."""
_CONTEXTS, _ENOUGH = 100, 120
"""Of a run that faults happen to; trials that it must have left before one."""


async def test_each_container_is_killed_and_cut_off_once_and_nothing_is_lost(
    harness: Harness, outside: Outside
) -> None:
    harness.up()
    faults = [(fault, service) for service in EVERY for fault in (kill, cut_off)]
    random.Random(8).shuffle(faults)
    watched = outside.start(contexts=_CONTEXTS)
    for fault, service in faults:
        watched.goes_on(2)
        if watched.left < _ENOUGH:
            await outside.nothing_lost(watched)
            watched = outside.start(contexts=_CONTEXTS)
            watched.goes_on(2)
        began = time.monotonic()
        fault(harness, service)
        watched.goes_on(2)
        print(f"{fault.__name__} {service}: trials again after {time.monotonic() - began:.0f} s")  # noqa: T201
    await outside.nothing_lost(watched, again=True)


def kill(harness: Harness, service: str) -> None:
    (container,) = harness.containers(service)
    harness.sh("docker", "kill", container)
    time.sleep(_AWAY)
    harness.sh("docker", "start", container)


def cut_off(harness: Harness, service: str) -> None:
    (container,) = harness.containers(service)
    networks = harness.networks(container)
    for network in networks:
        harness.sh("docker", "network", "disconnect", network, container)
    time.sleep(_AWAY)
    for network, names in networks.items():
        aliases = [word for name in names for word in ("--alias", name)]
        harness.sh("docker", "network", "connect", *aliases, network, container)


def test_what_crashes_is_started_again(harness: Harness) -> None:
    harness.up()
    for service in EVERY:
        (container,) = harness.containers(service)
        harness.compose("exec", "-T", service, "sh", "-c", "kill -9 -1", check=False)
        wait(lambda one=container: harness.inspect(one)["RestartCount"] == 1, 60, harness.state)
    for service in EVERY:
        harness.healthy(service)


async def test_compose_stop_drains_and_the_run_goes_on_after(harness: Harness, outside: Outside) -> None:
    harness.up()
    watched = outside.start(contexts=_CONTEXTS)
    watched.goes_on(5)
    assert watched.left >= _ENOUGH
    began = time.monotonic()
    harness.compose("stop")
    took = time.monotonic() - began
    codes = {service: harness.inspect(harness.containers(service)[0])["State"]["ExitCode"] for service in EVERY}
    assert codes == dict.fromkeys(EVERY, 0), "each ended by itself, none was killed"
    assert took < 30
    harness.up()
    trials = await outside.nothing_lost(watched, again=True)
    assert max(trial.attempts for trial in trials) <= 2, "one that was under way is taken again once, at most"
