"""What programs, plug-ins and notebooks may build on: the clients, a run's config, the errors, and what a domain is.

Names listed here keep their meaning from one minor version to the next; everything else in the package is the suite's
own and may change. They are imported when they are first used, so that `import sealkit` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sealkit.client import AsyncSealClient, SealClient
    from sealkit.config import RunConfig, load_config, parse_config
    from sealkit.domains.base import Context, Domain, Rejected, Studies, Study, StudyItem
    from sealkit.errors import SealError
    from sealkit.types import Prompt, Query, Sampling, TrainingExample, TrainingSpec

__all__ = [
    "AsyncSealClient",
    "Context",
    "Domain",
    "Prompt",
    "Query",
    "Rejected",
    "RunConfig",
    "Sampling",
    "SealClient",
    "SealError",
    "Studies",
    "Study",
    "StudyItem",
    "TrainingExample",
    "TrainingSpec",
    "load_config",
    "parse_config",
]

_HOMES = {
    "sealkit.client": ("AsyncSealClient", "SealClient"),
    "sealkit.config": ("RunConfig", "load_config", "parse_config"),
    "sealkit.domains.base": ("Context", "Domain", "Rejected", "Studies", "Study", "StudyItem"),
    "sealkit.errors": ("SealError",),
    "sealkit.types": ("Prompt", "Query", "Sampling", "TrainingExample", "TrainingSpec"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'sealkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
