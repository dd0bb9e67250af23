"""Which backend a service decodes with. The one place that knows them all."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sealkit.backends.base import Backend
from sealkit.backends.models import ModelSettings
from sealkit.backends.transformers import TransformersBackend
from sealkit.store import AdapterStore


class BackendSettings(ModelSettings):
    """Mixed into the settings of each service that samples text."""

    backend: Literal["transformers"] = Field("transformers", description="What samples text.")
    store_url: str = Field(description="fsspec URL of the adapter store.")
    max_rows: int = Field(32, ge=1, le=1024, description="Texts that are sampled at once.")
    max_waiting: int = Field(16384, ge=1, description="Texts that may wait; one more gets QUEUE_FULL.")
    adapter_mib: int = Field(2048, ge=1, description="Memory for adapters that may be needed again, in MiB.")


def make_backend(settings: BackendSettings) -> Backend:
    """The backend that `settings` name, not started. Raises InvalidConfig where the store cannot be opened."""
    return TransformersBackend(
        settings,
        AdapterStore(settings.store_url),
        max_rows=settings.max_rows,
        max_waiting=settings.max_waiting,
        adapter_bytes=settings.adapter_mib << 20,
    )
