import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil
import pytest

from seal_cli.stack import process, supervisor
from seal_cli.stack.layout import Layout
from seal_cli.stack.model import resolve_model
from seal_cli.stack.ports import Ports, is_free, port_of
from seal_cli.stack.services import CONTROLLER, MODEL_SERVICES, START_ORDER, plan, thread_shares
from sealkit.errors import FailedPrecondition, InvalidModel
from sealkit.processes import ProcessStart, start_of
from sealkit.stack_file import ServiceRecord, StackState

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
STUBBORN = [
    sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
]  # fmt: skip


def record(name: str, pid: int, start: ProcessStart) -> ServiceRecord:
    return ServiceRecord(name=name, pid=pid, start=start, started=0, address="127.0.0.1:1")


def spawned(folder: Path, command: list[str]) -> ServiceRecord:
    """A process that was started in the folder, with its log there."""
    found: list[ServiceRecord] = []
    keep = lambda pid, start: found.append(record("a", pid, start))  # noqa: E731
    process.spawn(command, env=os.environ, log=folder / "a.log", cwd=folder, record=keep)
    return found[0]


@pytest.mark.parametrize(
    ("cores", "shares"),
    [(1, (1, 1, 1)), (2, (1, 1, 1)), (4, (1, 2, 1)), (8, (2, 4, 2)), (16, (4, 8, 4))],
)
def test_threads_are_shared_out(cores: int, shares: tuple[int, int, int]) -> None:
    assert tuple(thread_shares(cores)[name] for name in MODEL_SERVICES) == shares


def test_a_process_is_known_by_pid_and_start(tmp_path: Path) -> None:
    ours = spawned(tmp_path, SLEEPER)
    other = record("a", ours.pid, ours.start.changed(moment="1"))
    try:
        assert process.is_running(ours)
        assert process.has_ended(other)
        assert process.stop([other], grace=0) == []
        assert process.is_running(ours), "a pid that was given to another program must not be signalled"
    finally:
        assert process.stop([ours], grace=5) == []
    assert process.has_ended(ours)


def test_what_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    stubborn = spawned(tmp_path, STUBBORN)
    assert process.stop([stubborn], grace=0.2) == []
    assert process.has_ended(stubborn)


def test_the_log_of_the_last_start_is_kept_beside_the_new_one(tmp_path: Path) -> None:
    for word in ("first", "second"):
        one = spawned(tmp_path, [sys.executable, "-c", f"print('{word}')"])
        os.waitpid(one.pid, 0)
        assert process.has_ended(one)
    assert ((tmp_path / "a.log").read_text(), (tmp_path / "a.log.1").read_text()) == ("second\n", "first\n")


def test_nothing_begins_before_it_is_recorded(tmp_path: Path) -> None:
    """`seal up` may be killed at any moment: a command that is not in the state file never begins."""
    touch = ["/bin/sh", "-c", "touch began"]
    seen: list[int] = []

    def full_disk(pid: int, _: ProcessStart) -> None:
        seen.append(pid)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        process.spawn(touch, env=os.environ, log=tmp_path / "a.log", cwd=tmp_path, record=full_disk)
    with suppress(ChildProcessError):  # subprocess may have waited for it already
        os.waitpid(seen[0], 0)
    killed = (
        "import os, signal, sys; from pathlib import Path; from seal_cli.stack import process\n"
        "def die(pid, start): print(pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
        "here = Path(sys.argv[1])\n"
        "process.spawn(['/bin/sh', '-c', 'touch began'], env=os.environ, log=here / 'b.log', cwd=here, record=die)"
    )
    died = subprocess.run([sys.executable, "-c", killed, str(tmp_path)], capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL
    _await_end(int(died.stdout))
    assert not (tmp_path / "began").exists()
    os.waitpid(spawned(tmp_path, touch).pid, 0)
    assert (tmp_path / "began").exists()


def _await_end(pid: int) -> None:
    with suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(10)


@pytest.fixture
def stacked(tmp_path: Path) -> Iterator[Layout]:
    """A data folder with a running controller, and a trainer that has ended."""
    layout = Layout.at(tmp_path / "data")
    layout.create()
    controller = spawned(tmp_path, SLEEPER).changed(name="controller")
    trainer = controller.changed(name="trainer", start=controller.start.changed(moment="1"))
    layout.write_state(StackState(model="m", services=(controller, trainer)))
    yield layout
    process.stop([controller], grace=0)


def states(layout: Layout) -> dict[str, str]:
    return {service.record.name: service.state for service in supervisor.status(layout)}


def test_a_step_of_the_clock_changes_nothing(stacked: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """psutil's start times are those of the stepped clock: /proc/stat's btime is now minus the uptime."""
    before, now = states(stacked), time.time
    assert before == {"controller": "not ready", "trainer": "dead"}
    boot = psutil.boot_time
    for step in (8.0, -3600.0, 86400.0):
        monkeypatch.setattr(time, "time", lambda step=step: now() + step)
        monkeypatch.setattr(psutil, "boot_time", lambda step=step: boot() + step)
        monkeypatch.setattr("psutil._psplatform.boot_time", lambda step=step: boot() + step)
        assert states(stacked) == before, step
        with pytest.raises(FailedPrecondition, match="a stack with the model m runs"):
            supervisor.up(stacked, "other", port=None, timeout=1, say=print)
    assert supervisor.down(stacked, print), "and it is found to be stopped"
    assert not stacked.state_file.exists()


def test_what_is_not_known_to_have_ended_is_not_forgotten(stacked: Layout) -> None:
    """A state file that another machine wrote, in a folder that both see."""
    state = stacked.read_state()
    assert state is not None
    (controller, trainer) = state.services
    elsewhere = controller.start.changed(host="node7", boot="another")
    far = trainer.changed(start=elsewhere)
    stacked.write_state(StackState(model="m", services=(controller, far)))
    assert states(stacked) == {"controller": "not ready", "trainer": "unknown"}
    with pytest.raises(FailedPrecondition, match=r"trainer \(pid \d+ on node7\)"):
        supervisor.up(stacked, "m", port=None, timeout=1, say=print)
    with pytest.raises(FailedPrecondition, match=r"trainer \(pid \d+ on node7\).*seal down"):
        supervisor.down(stacked, print)
    assert process.has_ended(controller), "what runs here is stopped"
    assert stacked.read_state() == StackState(model="m", services=(far,))
    rebooted = trainer.changed(start=controller.start.changed(boot="before"))
    stacked.write_state(StackState(model="m", services=(rebooted,)))
    assert not supervisor.down(stacked, print)
    assert not stacked.state_file.exists()


def test_state_survives_a_round_trip_and_a_wrong_file_is_named(tmp_path: Path) -> None:
    layout = Layout.at(tmp_path)
    assert layout.read_state() is None
    start = start_of(os.getpid())
    state = StackState(model="m").having(record("a", 1, start)).having(record("a", 3, start))
    layout.write_state(state)
    assert layout.read_state() == StackState(model="m", services=(record("a", 3, start),))
    layout.state_file.write_text("{")
    with pytest.raises(FailedPrecondition, match=r"stack\.json"):
        layout.read_state()


def test_the_data_folder_is_for_this_user_alone(tmp_path: Path) -> None:
    layout = Layout.at(tmp_path / "data")
    layout.create()
    assert {folder.stat().st_mode & 0o777 for folder in (layout.data, layout.logs, layout.valkey)} == {0o700}


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FailedPrecondition, match="--data"):
        Layout.at(tmp_path / "file" / "data").create()


def test_a_deep_data_folder_gets_a_short_socket_path(tmp_path: Path) -> None:
    layout = Layout.at(tmp_path / ("deep/" * 30))
    assert len(os.fsencode(layout.socket)) < 104
    assert layout.socket != Layout.at(tmp_path / ("deep/" * 31)).socket


def test_a_second_user_of_the_lock_waits(tmp_path: Path) -> None:
    layout = Layout.at(tmp_path)
    code = (
        "import sys; from pathlib import Path; from seal_cli.stack.layout import Layout\n"
        "with Layout.at(Path(sys.argv[1])).locked(lambda: print('waiting', flush=True)): print('in', flush=True)"
    )
    with layout.locked(lambda: pytest.fail("nobody else holds it")):
        other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None
        assert other.stdout.readline() == "waiting\n"
    assert other.communicate(timeout=10)[0] == "in\n"


def test_a_port_that_was_asked_for_and_is_in_use_is_refused() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not is_free(port)
        with pytest.raises(FailedPrecondition, match=f"port {port} .* --port"):
            Ports().controller(port)
    with pytest.raises(FailedPrecondition, match=r"port 7001 .* --port"):
        Ports([7001]).controller(7001)


def test_no_port_is_picked_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the system offers a port again as long as nothing listens on it, and the default ports are among those."""
    offered: list[int] = []

    class Socket:
        def __enter__(self) -> Self:
            return self

        def __exit__(self, *error: object) -> None: ...

        def setsockopt(self, *option: int) -> None: ...

        def bind(self, address: tuple[str, int]) -> None:
            self.port = address[1] or offered.pop(0)

        def getsockname(self) -> tuple[str, int]:
            return "127.0.0.1", self.port

    monkeypatch.setattr("socket.socket", Socket)
    known = record("trainer", 1, start_of(os.getpid())).changed(address="127.0.0.1:7001", metrics="127.0.0.1:9001")
    for asked in (None, 0, 9002):
        offered[:] = [7001, 50050, 8000, *(port for port in range(9001, 9020) for _ in range(2))]
        launches = plan(Layout.at(tmp_path), StackState(model="org/model", services=(known,)), asked)[1:]
        addresses = [address for launch in launches for address in (launch.address, launch.metrics)]
        assert len({port_of(address) for address in addresses}) == len(addresses) == 10


def test_the_plan_names_every_address_to_the_controller(tmp_path: Path) -> None:
    layout = Layout.at(tmp_path)
    port = Ports().any()
    launches = {launch.name: launch for launch in plan(layout, StackState(model=str(tmp_path)), port)}
    assert tuple(launches) == START_ORDER
    controller = launches[CONTROLLER]
    assert controller.address == f"127.0.0.1:{port}"
    for name in MODEL_SERVICES:
        assert controller.env[f"SEAL_CONTROLLER_{name.upper()}"] == launches[name].address
        assert launches[name].env[f"SEAL_{name.upper()}_MODEL"] == str(tmp_path)
        assert launches[name].env["HF_HUB_OFFLINE"] == "1"
        assert launches[name].env[f"SEAL_{name.upper()}_STACK_FILE"] == str(layout.state_file)
    addresses = [launch.address for launch in launches.values()] + [launch.metrics for launch in launches.values()][1:]
    assert len(set(addresses)) == len(addresses)


def test_a_service_that_comes_back_keeps_its_address(tmp_path: Path) -> None:
    known = record("trainer", 1, start_of(os.getpid())).changed(address="127.0.0.1:7001", metrics="127.0.0.1:7002")
    launches = plan(Layout.at(tmp_path), StackState(model="org/model", services=(known,)), 0)
    trainer = next(launch for launch in launches if launch.name == "trainer")
    assert (trainer.address, trainer.metrics) == ("127.0.0.1:7001", "127.0.0.1:7002")
    assert "HF_HUB_OFFLINE" not in trainer.env or trainer.env["HF_HUB_OFFLINE"] == os.environ.get("HF_HUB_OFFLINE")


def test_paths_in_the_environment_are_those_of_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Services run in the data folder; a cache belongs there, a file that the caller names does not."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEAL_GENERATOR_EDITORS_FILE", "editors.toml")
    monkeypatch.setenv("SEAL_EVALUATOR_JUDGE_API_KEY_FILE", "/run/key")
    launches = {one.name: one for one in plan(Layout.at(tmp_path / "data"), StackState(model="org/model"), 0)}
    assert launches["generator"].env["SEAL_GENERATOR_EDITORS_FILE"] == str(tmp_path / "editors.toml")
    assert launches["evaluator"].env["SEAL_EVALUATOR_JUDGE_API_KEY_FILE"] == "/run/key"
    assert launches["evaluator"].env["SEAL_EVALUATOR_JUDGE_CACHE_URL"] == f"sqlite:///{tmp_path}/data/judge.db"
    monkeypatch.setenv("SEAL_EVALUATOR_JUDGE_CACHE_URL", "sqlite://")
    launches = {one.name: one for one in plan(Layout.at(tmp_path / "data"), StackState(model="org/model"), 0)}
    assert launches["evaluator"].env["SEAL_EVALUATOR_JUDGE_CACHE_URL"] == "sqlite://"


def test_models_are_resolved_before_anything_starts(tmp_path: Path) -> None:
    layout = Layout.at(tmp_path / "data")
    gguf = tmp_path / "m.gguf"
    gguf.touch()
    assert resolve_model(str(gguf), layout, print) == str(gguf)
    assert resolve_model("org/name", layout, print) == "org/name"
    with pytest.raises(InvalidModel, match="no model at"):
        resolve_model("./missing", layout, print)


def test_thread_counts_that_are_set_but_empty_are_not_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "SEAL_TRAINER_THREADS"):
        monkeypatch.setenv(name, "")
    for launch in plan(Layout.at(tmp_path), StackState(model="org/model"), 0):
        assert launch.env.get("OMP_NUM_THREADS") != "", launch.name
        assert "MKL_NUM_THREADS" not in launch.env
