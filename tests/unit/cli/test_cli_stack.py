import os
import subprocess
import sys
from pathlib import Path

import pytest

from seal_cli.stack import process
from seal_cli.stack.layout import Layout, ServiceRecord, StackState
from seal_cli.stack.model import resolve_model
from seal_cli.stack.ports import controller_port, free_ports, is_free
from seal_cli.stack.services import CONTROLLER, MODEL_SERVICES, START_ORDER, plan, thread_shares
from sealkit.errors import FailedPrecondition, InvalidModel

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
STUBBORN = [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); print(1); time.sleep(60)"]


def record(name: str, pid: int, started: float) -> ServiceRecord:
    return ServiceRecord(name=name, pid=pid, started=started, address="127.0.0.1:1")


@pytest.mark.parametrize(
    ("cores", "shares"),
    [(1, (1, 1, 1)), (2, (1, 1, 1)), (4, (1, 2, 1)), (8, (2, 4, 2)), (16, (4, 8, 4))],
)
def test_threads_are_shared_out(cores: int, shares: tuple[int, int, int]) -> None:
    assert tuple(thread_shares(cores)[name] for name in MODEL_SERVICES) == shares


def test_a_process_is_known_by_pid_and_start_time(tmp_path: Path) -> None:
    pid, started = process.spawn(SLEEPER, env=os.environ, log=tmp_path / "a.log", cwd=tmp_path)
    ours, other = record("a", pid, started), record("a", pid, started - 3600)
    try:
        assert process.is_alive(ours)
        assert not process.is_alive(other)
        process.stop([other], grace=0)
        assert process.is_alive(ours), "a pid that was given to another program must not be signalled"
    finally:
        process.stop([ours], grace=5)
    assert not process.is_alive(ours)


def test_what_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    pid, started = process.spawn(STUBBORN, env=os.environ, log=log, cwd=tmp_path)
    process.stop([record("a", pid, started)], grace=0.2)
    assert not process.is_alive(record("a", pid, started))


def test_the_log_of_the_last_start_is_kept_beside_the_new_one(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    for word in ("first", "second"):
        pid, started = process.spawn([sys.executable, "-c", f"print('{word}')"], env=os.environ, log=log, cwd=tmp_path)
        os.waitpid(pid, 0)
        assert not process.is_alive(record("a", pid, started))
    assert (log.read_text(), (tmp_path / "a.log.1").read_text()) == ("second\n", "first\n")


def test_state_survives_a_round_trip_and_a_wrong_file_is_named(tmp_path: Path) -> None:
    layout = Layout.at(tmp_path)
    assert layout.read_state() is None
    state = StackState(model="m").having(record("a", 1, 2.0)).having(record("a", 3, 4.0))
    layout.write_state(state)
    assert layout.read_state() == StackState(model="m", services=(record("a", 3, 4.0),))
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
            controller_port(port)


def test_free_ports_differ() -> None:
    assert len(set(free_ports(20))) == 20


def test_the_plan_names_every_address_to_the_controller(tmp_path: Path) -> None:
    layout = Layout.at(tmp_path)
    launches = {launch.name: launch for launch in plan(layout, StackState(model=str(tmp_path)), 50050)}
    assert tuple(launches) == START_ORDER
    controller = launches[CONTROLLER]
    assert controller.address == "127.0.0.1:50050"
    for name in MODEL_SERVICES:
        assert controller.env[f"SEAL_CONTROLLER_{name.upper()}"] == launches[name].address
        assert launches[name].env[f"SEAL_{name.upper()}_MODEL"] == str(tmp_path)
        assert launches[name].env["HF_HUB_OFFLINE"] == "1"
    addresses = [launch.address for launch in launches.values()] + [launch.metrics for launch in launches.values()][1:]
    assert len(set(addresses)) == len(addresses)


def test_a_service_that_comes_back_keeps_its_address(tmp_path: Path) -> None:
    known = ServiceRecord(name="trainer", pid=1, started=0, address="127.0.0.1:7001", metrics="127.0.0.1:7002")
    launches = plan(Layout.at(tmp_path), StackState(model="org/model", services=(known,)), 50050)
    trainer = next(launch for launch in launches if launch.name == "trainer")
    assert (trainer.address, trainer.metrics) == ("127.0.0.1:7001", "127.0.0.1:7002")
    assert "HF_HUB_OFFLINE" not in trainer.env or trainer.env["HF_HUB_OFFLINE"] == os.environ.get("HF_HUB_OFFLINE")


def test_models_are_resolved_before_anything_starts(tmp_path: Path) -> None:
    layout = Layout.at(tmp_path / "data")
    gguf = tmp_path / "m.gguf"
    gguf.touch()
    assert resolve_model(str(gguf), layout, print) == str(gguf)
    assert resolve_model("org/name", layout, print) == "org/name"
    with pytest.raises(InvalidModel, match="no model at"):
        resolve_model("./missing", layout, print)
