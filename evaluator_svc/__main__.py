"""`python -m evaluator_svc`: the evaluator as a process."""

from __future__ import annotations

from evaluator_svc.service import EvaluatorService
from evaluator_svc.settings import EvaluatorSettings
from sealkit.backends.factory import make_backend
from sealkit.rpc.server import run


def _make() -> tuple[EvaluatorService, EvaluatorSettings]:
    settings = EvaluatorSettings()
    backend = make_backend(settings, service="evaluator", new_adapters=True)
    service = EvaluatorService(backend, kept_verdicts=settings.kept_verdicts, judge_settings=settings)
    return service, settings


if __name__ == "__main__":
    raise SystemExit(run(_make))
