"""Where a controller process listens, by its role."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from controller.settings import ControllerSettings, WorkerSettings


def test_a_worker_alone_takes_no_port_that_an_api_on_the_same_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEAL_CONTROLLER_LISTEN", raising=False)
    assert ControllerSettings().listen == "127.0.0.1:50050"
    assert WorkerSettings().listen == "127.0.0.1:0"
    monkeypatch.setenv("SEAL_CONTROLLER_LISTEN", "0.0.0.0:50059")
    assert WorkerSettings().listen == "0.0.0.0:50059"


def test_replicas_without_a_port_are_refused_at_the_start() -> None:
    assert ControllerSettings(trainer="t1:50052, t2:50052").trainer
    with pytest.raises(ValidationError, match="'t2' is not host:port"):
        ControllerSettings(trainer="t1:50052,t2")
