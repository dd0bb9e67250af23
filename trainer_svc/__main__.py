"""`python -m trainer_svc`: the trainer as a process."""

from __future__ import annotations

from sealkit.rpc.server import run
from trainer_svc.service import TrainerService
from trainer_svc.settings import TrainerSettings


def _make() -> tuple[TrainerService, TrainerSettings]:
    settings = TrainerSettings()
    return TrainerService(settings), settings


if __name__ == "__main__":
    raise SystemExit(run(_make))
