"""The processes of the stack: command, environment and threads of each."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from seal_cli.stack import valkey
from seal_cli.stack.layout import CONTROLLER, Layout
from seal_cli.stack.ports import GATEWAY_PORT, LOOPBACK, Ports, port_of
from sealkit.errors import InvalidConfig
from sealkit.stack_file import VALKEY, StackState
from sealkit.urls import socket_url, sqlite_url

GENERATOR = "generator"
TRAINER = "trainer"
EVALUATOR = "evaluator"
GATEWAY = "gateway"
HEALTH_NAMES = {
    GENERATOR: "seal.generator.v1.GeneratorService",
    TRAINER: "seal.trainer.v1.TrainerService",
    EVALUATOR: "seal.evaluator.v1.EvaluatorService",
    CONTROLLER: "seal.controller.v1.ControllerService",
}
"""The gRPC services."""
MODEL_SERVICES = (GENERATOR, TRAINER, EVALUATOR)
START_ORDER = (VALKEY, *MODEL_SERVICES, CONTROLLER, GATEWAY)
STOP_ORDER = ((GATEWAY,), (CONTROLLER,), MODEL_SERVICES, (VALKEY,))
"""Callers stop before the services they call."""

BATCHED_JOBS = 6
"""Jobs that the trainer batches. More gain little on a CPU, and all would end at once: the evaluator would first idle
and then be overloaded."""

_PATH = re.compile("SEAL_[A-Z_]+_(FILE|FOLDER)")


@dataclass(frozen=True)
class Launch:
    """How to start one process."""

    name: str
    command: list[str]
    env: dict[str, str]
    address: str
    metrics: str = ""


def thread_shares(cores: int) -> dict[str, int]:
    """Torch threads by service. Training takes most of a trial's time, so the trainer gets the remaining threads."""
    helper = max(1, cores // 4)
    return {GENERATOR: helper, EVALUATOR: helper, TRAINER: max(1, cores - 2 * helper)}


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def plan(layout: Layout, state: StackState, controller_port: int | None) -> list[Launch]:
    """The launches of all services. A service that was started here before keeps its addresses.

    Raises FailedPrecondition if the requested port of the controller is in use.
    """
    known = {record.name: record for record in state.services if record.name != VALKEY}
    ports = Ports(port_of(address) for record in known.values() for address in (record.address, record.metrics))
    addresses = {name: record.address for name, record in known.items()}
    # Those that want a certain port choose first.
    if CONTROLLER not in known:
        addresses[CONTROLLER] = f"{LOOPBACK}:{ports.controller(controller_port)}"
    if GATEWAY not in known:
        addresses[GATEWAY] = f"{LOOPBACK}:{ports.preferred(GATEWAY_PORT)}"
    metrics = {name: record.metrics for name, record in known.items()}
    for name in START_ORDER:
        if name != VALKEY and name not in known:
            addresses.setdefault(name, f"{LOOPBACK}:{ports.any()}")
            metrics[name] = f"{LOOPBACK}:{ports.any()}"
    shares = thread_shares(usable_cores())
    launches = [Launch(VALKEY, valkey.command(layout.valkey, layout.socket), _environment(), str(layout.socket))]
    for name in MODEL_SERVICES:
        env = _service_env(layout, name, addresses[name], metrics[name]) | _model_env(
            name, state.model, layout, shares[name]
        )
        if name == TRAINER:
            env = {"SEAL_TRAINER_MAX_JOBS": str(BATCHED_JOBS)} | env
        if name == EVALUATOR:
            env = {"SEAL_EVALUATOR_JUDGE_CACHE_URL": sqlite_url(layout.verdicts)} | env
        command = [sys.executable, "-m", f"{name}_svc"]
        launches.append(Launch(name, command, env, addresses[name], metrics[name]))
    env = _service_env(layout, CONTROLLER, addresses[CONTROLLER], metrics[CONTROLLER])
    env |= _controller_env(layout, addresses)
    command = [sys.executable, "-m", "controller", "all"]
    launches.append(Launch(CONTROLLER, command, env, addresses[CONTROLLER], metrics[CONTROLLER]))
    env = _service_env(layout, GATEWAY, addresses[GATEWAY], metrics[GATEWAY])
    env["SEAL_GATEWAY_CONTROLLER"] = addresses[CONTROLLER]
    command = [sys.executable, "-m", "gateway"]
    launches.append(Launch(GATEWAY, command, env, addresses[GATEWAY], metrics[GATEWAY]))
    return launches


def _service_env(layout: Layout, name: str, address: str, metrics: str) -> dict[str, str]:
    prefix = f"SEAL_{name.upper()}_"
    own = {"LISTEN": address, "METRICS_LISTEN": metrics, "STACK_FILE": str(layout.state_file)}
    return _environment() | {f"{prefix}{setting}": value for setting, value in own.items()}


def _environment() -> dict[str, str]:
    """This process's environment, for processes in another working folder: paths of files and folders are absolute.
    Without thread counts that are set but empty: OpenMP rejects them, with a line on stderr in every process."""
    return {
        name: str(Path(value).absolute()) if value and _PATH.fullmatch(name) else value
        for name, value in os.environ.items()
        if value or not name.endswith("_NUM_THREADS")
    }


def _model_env(name: str, model: str, layout: Layout, threads: int) -> dict[str, str]:
    prefix = f"SEAL_{name.upper()}_"
    # An explicit setting of the threads (for a measurement, say) is kept.
    if asked := os.environ.get(f"{prefix}THREADS"):
        if not asked.isascii() or not asked.isdecimal():
            raise InvalidConfig(
                f"{prefix}THREADS: {asked!r} is not a number of threads; set it to 1 or more, or unset it"
            )
        threads = int(asked) or threads
    env = {
        f"{prefix}MODEL": model,
        f"{prefix}STORE_URL": str(layout.store),
        f"{prefix}THREADS": str(threads),
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
    }
    if Path(model).exists():
        # A local model needs no hub, and a request to it would wait for a network that may be missing.
        env["HF_HUB_OFFLINE"] = "1"
    return env


def _controller_env(layout: Layout, addresses: Mapping[str, str]) -> dict[str, str]:
    return {
        "SEAL_CONTROLLER_DATABASE_URL": sqlite_url(layout.database),
        "SEAL_CONTROLLER_REDIS_URL": socket_url(layout.socket),
        **{f"SEAL_CONTROLLER_{name.upper()}": addresses[name] for name in MODEL_SERVICES},
    }
