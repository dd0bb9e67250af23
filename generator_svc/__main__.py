"""`python -m generator_svc`: the generator as a process."""

from __future__ import annotations

from generator_svc.editors import read_editors
from generator_svc.service import GeneratorService
from generator_svc.settings import GeneratorSettings
from sealkit.backends.factory import make_backend
from sealkit.rpc.server import run


def _make() -> tuple[GeneratorService, GeneratorSettings]:
    settings = GeneratorSettings()
    backend = make_backend(settings, service="generator")
    return GeneratorService(backend, read_editors(settings.editors_file)), settings


if __name__ == "__main__":
    raise SystemExit(run(_make))
