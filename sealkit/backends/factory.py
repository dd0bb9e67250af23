"""Selects the backend of a service, and puts routes before it; the only module that knows all of them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from sealkit.backends.base import Backend
from sealkit.backends.models import ModelSettings
from sealkit.backends.openai import OpenAIBackend, ServedModel
from sealkit.backends.remote import NoAdapters
from sealkit.backends.routed import RoutedBackend
from sealkit.backends.tgi import TgiBackend, TgiOptions
from sealkit.backends.transformers import TransformersBackend
from sealkit.backends.vllm import VllmAdapters, VllmOptions
from sealkit.endpoint import EndpointOptions
from sealkit.errors import InvalidConfig
from sealkit.observability.metrics import watch_disk
from sealkit.store import AdapterStore

_USE_VLLM = "decode with vLLM (backend vllm) or in process (backend transformers)"


class EndpointSettings(BaseModel):
    """Settings of backends that use a server: its address, and how adapters get there."""

    endpoint_url: str = Field("", description="Base URL: of an OpenAI-compatible API with its `/v1`, of TGI without.")
    endpoint_model: str = Field("", description="Name under which the server serves the model.")
    endpoint_api_key_env: str = Field("", description="Environment variable that holds the API key; empty: none.")
    endpoint_api_key_file: str = Field("", description="File that holds the API key; empty: none.")
    endpoint_concurrency: int = Field(64, ge=1, description="Concurrent requests; the server batches them.")
    endpoint_seconds: float = Field(600, gt=0, description="Longest wait for one answer.")
    vllm_folder: str = Field("", description="Folder, shared with vLLM, that adapters are written to.")
    vllm_folder_there: str = Field("", description="The same folder as vLLM sees it; empty: the same path.")
    vllm_owner: str = Field(
        "",
        description="Unique name of this replica; it removes what it left on the server. Empty: the service's name.",
    )
    vllm_slots: int = Field(8, ge=1, description="Adapters on the server at once.")
    vllm_max_rank: int = Field(64, ge=1, description="The server's --max-lora-rank.")
    probe_tolerance: float = Field(0.4, gt=0, description="How far an adapter's probe may be off, in nats.")
    tgi_adapters: dict[str, str] = Field(
        default_factory=dict, description='Adapters that TGI was started with, as JSON: {"digest": "adapter id"}.'
    )
    tgi_merged: str = Field("", description="Digest of the policy's adapter that is merged into the model TGI serves.")
    tgi_wait_seconds: float = Field(600, ge=0, description="How long TGI may take to load its model.")


class BackendSettings(ModelSettings, EndpointSettings):
    """Mixed into the settings of each service that samples text."""

    backend: Literal["transformers", "openai", "vllm", "tgi"] = Field("transformers", description="What samples text.")
    store_url: str = Field(description="fsspec URL of the adapter store.")
    max_rows: int = Field(32, ge=1, le=1024, description="Texts that are sampled at once.")
    max_waiting: int = Field(16384, ge=1, description="Texts that may wait; one more gets QUEUE_FULL.")
    deterministic: Literal["auto", "on", "off"] = Field(
        "auto", description="Batch-invariant decoding, to the bit; `auto` is on in half precision."
    )
    adapter_mib: int = Field(2048, ge=1, description="Memory of the adapter cache, in MiB.")


def make_backend(settings: BackendSettings, *, service: str = "seal", new_adapters: bool = False) -> Backend:
    """The backend that `settings` name for this service, not yet started. `new_adapters`: whether it must load adapters
    that are trained while it runs. Raises InvalidConfig if the store cannot be opened, a required setting is missing or
    wrong, or the backend cannot load adapters but must."""
    store = AdapterStore(settings.store_url)
    if store.folder is not None:
        watch_disk("store", store.folder)
    if settings.backend != "transformers":
        if new_adapters and settings.backend != "vllm":
            raise InvalidConfig(
                f"the {service} must load adapters that are trained while it runs, but backend {settings.backend} "
                f"cannot: {_USE_VLLM}"
            )
        return RoutedBackend(_on_a_server(settings, store, service), store)
    backend = TransformersBackend(
        settings,
        store,
        max_rows=settings.max_rows,
        max_waiting=settings.max_waiting,
        adapter_bytes=settings.adapter_mib << 20,
        deterministic=settings.deterministic,
    )
    return RoutedBackend(backend, store)


def _on_a_server(settings: BackendSettings, store: AdapterStore, service: str) -> Backend:
    needed = ["endpoint_url", "endpoint_model", *(["vllm_folder"] if settings.backend == "vllm" else [])]
    missing = [name for name in needed if not getattr(settings, name)]
    if missing:
        raise InvalidConfig(f"backend {settings.backend} needs {', '.join(missing)}; set these variables")
    try:
        options = endpoint_options(settings)
        model = ServedModel(
            model=settings.model, served_as=settings.endpoint_model, template_date=settings.template_date
        )
        if settings.backend == "tgi":
            return TgiBackend(model, options, _tgi_options(settings), store)
        adapters = (
            VllmAdapters(store, _vllm_options(settings, service))
            if settings.backend == "vllm"
            else NoAdapters(_USE_VLLM)
        )
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InvalidConfig(f"backend {settings.backend}: {faults}") from error
    return OpenAIBackend(model, options, adapters, name=settings.backend)


def endpoint_options(settings: EndpointSettings) -> EndpointOptions:
    """Endpoint options of a backend's server. Raises pydantic's ValidationError."""
    return EndpointOptions(
        url=settings.endpoint_url,
        api_key_env=settings.endpoint_api_key_env,
        api_key_file=settings.endpoint_api_key_file,
        concurrency=settings.endpoint_concurrency,
        breaker_failures=2 * settings.endpoint_concurrency,
        answer_seconds=settings.endpoint_seconds,
        deadline_seconds=2 * settings.endpoint_seconds,
    )


def _vllm_options(settings: EndpointSettings, service: str) -> VllmOptions:
    return VllmOptions(
        folder=settings.vllm_folder,
        folder_there=settings.vllm_folder_there,
        owner=settings.vllm_owner or service,
        slots=settings.vllm_slots,
        max_rank=settings.vllm_max_rank,
        tolerance=settings.probe_tolerance,
    )


def _tgi_options(settings: EndpointSettings) -> TgiOptions:
    return TgiOptions(
        adapters=settings.tgi_adapters,
        merged=settings.tgi_merged,
        tolerance=settings.probe_tolerance,
        wait_seconds=settings.tgi_wait_seconds,
    )
