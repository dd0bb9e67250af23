import os
import shutil
import threading
from pathlib import Path

import pytest

from seal_cli import liveness as module
from seal_cli.liveness import obstacle, report_dead_services
from seal_cli.options import embedded_address
from seal_cli.stack.layout import Layout
from seal_cli.stack.supervisor import up
from sealkit.errors import FailedPrecondition, Unavailable
from sealkit.processes import start_of
from sealkit.stack_file import ServiceRecord, StackState


def stack(folder: Path, *, dead: bool) -> Layout:
    """The record of a stack whose controller is this process, and whose trainer is too, or has died."""
    start = start_of(os.getpid())
    layout = Layout.at(folder)
    layout.create()
    record = ServiceRecord(name="controller", pid=os.getpid(), start=start, started=0, address="127.0.0.1:50050")
    trainer = record.changed(name="trainer", start=start.changed(moment="1") if dead else start)
    layout.write_state(StackState(model="m", services=(record, trainer)))
    return layout


def test_a_dead_service_and_a_stopped_stack_are_named(tmp_path: Path) -> None:
    assert obstacle(stack(tmp_path / "a", dead=False)) == ""
    assert obstacle(stack(tmp_path / "b", dead=True)) == "trainer died: `seal up` starts it again"
    assert obstacle(Layout.at(tmp_path / "none")).startswith("the stack was stopped")


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = stack(tmp_path, dead=False)
    full = shutil.disk_usage(tmp_path)._replace(free=4096)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    assert obstacle(layout) == f"the disk with {layout.data} is full: make room"


def test_who_follows_a_run_hears_once_of_a_dead_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = stack(tmp_path, dead=True)
    looks, said = [], []
    third = threading.Event()

    def look(where: Layout) -> str:
        looks.append(where)
        if len(looks) == 3:
            third.set()
        return obstacle(where)

    monkeypatch.setattr(module, "obstacle", look)
    monkeypatch.setattr(module.out, "print", lambda text, **_: said.append(text))
    with report_dead_services(layout.data, every=0.001):
        assert third.wait(10)
    assert said == ["trainer died: `seal up` starts it again; the run waits, and continues after that"]


def test_a_port_that_a_running_stack_does_not_have_is_refused(tmp_path: Path) -> None:
    layout = stack(tmp_path, dead=False)
    with pytest.raises(FailedPrecondition, match=r"127\.0\.0\.1:50050, not on port 50051.*seal down"):
        up(layout, "m", port=50051, timeout=1, say=print)


def test_a_dead_controller_is_not_waited_for(tmp_path: Path) -> None:
    layout = stack(tmp_path, dead=False)
    assert embedded_address(tmp_path) == "127.0.0.1:50050"
    state = layout.read_state()
    assert state is not None
    gone = state.services[0].changed(start=start_of(os.getpid()).changed(moment="1"))
    layout.write_state(StackState(model="m", services=(gone,)))
    with pytest.raises(Unavailable, match="seal up"):
        embedded_address(tmp_path)
