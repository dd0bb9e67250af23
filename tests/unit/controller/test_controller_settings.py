"""Where a controller process listens, by its role."""

from __future__ import annotations

import pytest

from controller.settings import ControllerSettings, WorkerSettings


def test_a_worker_alone_takes_no_port_that_an_api_on_the_same_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEAL_CONTROLLER_LISTEN", raising=False)
    assert ControllerSettings().listen == "127.0.0.1:50050"
    assert WorkerSettings().listen == "127.0.0.1:0"
    monkeypatch.setenv("SEAL_CONTROLLER_LISTEN", "0.0.0.0:50059")
    assert WorkerSettings().listen == "0.0.0.0:50059"
