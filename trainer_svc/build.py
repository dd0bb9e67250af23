"""Builds the trainer from its settings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from sealkit.backends.loading import Loading
from sealkit.backends.models import load_model
from sealkit.backends.probe import PROBE_TEXT
from sealkit.observability import metrics
from sealkit.observability.gpu import watch_gpus
from sealkit.store import AdapterStore
from sealkit.types import TrainingExample
from trainer_svc.encoding import encode
from trainer_svc.engine import Engine
from trainer_svc.memory import keep_freed_memory, peak_memory_bytes
from trainer_svc.packed import PackedModel
from trainer_svc.settings import TrainerSettings
from trainer_svc.trainer import Trainer


@dataclass(frozen=True)
class Built:
    trainer: Trainer
    engine: Engine


def build(settings: TrainerSettings) -> Built:
    """Loads the model and starts the engine; blocking. Raises InvalidModel, InvalidConfig, Unavailable."""
    store = AdapterStore(settings.store_url)
    if store.folder is not None:
        metrics.watch_disk("store", store.folder)
    keep_freed_memory()
    loading = Loading(settings.four_bit, settings.device_map)
    # A manifest records it, because only with 1 are results reproducible to the last bit.
    loaded = load_model(settings, loading).with_build(max_jobs=str(settings.max_jobs))
    model = PackedModel(loaded.model, checkpoint=settings.checkpoint)
    engine = Engine(
        model,
        encode(loaded.tokenizer, TrainingExample(text=PROBE_TEXT), append_eos=True).last_label_only(),
        max_jobs=settings.max_jobs,
        max_waiting=settings.max_waiting,
        # A thousand rows saturate a CPU, and each costs memory: 1.5 MB a token with SmolLM2-135M.
        target_bytes=settings.target_mib << 20,
        step_tokens=settings.step_tokens or (8192 if model.device.type == "cuda" else 1024),
    )
    # Read when it is scraped, so it costs nothing in a step.
    metrics.TRAINER_PEAK_MEMORY.set_function(partial(peak_memory_bytes, model.device))
    watch_gpus()
    engine.start()
    trainer = Trainer(loaded, engine, store, limits=settings.limits, policy_first=settings.policy_first)
    return Built(trainer, engine)
