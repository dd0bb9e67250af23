"""The trainer's settings: SEAL_TRAINER_* in the environment."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from sealkit.backends.models import ModelSettings
from sealkit.rpc.settings import Address, ServerSettings
from trainer_svc.limits import Limits


class TrainerSettings(ServerSettings, ModelSettings):
    model_config = SettingsConfigDict(
        env_prefix="SEAL_TRAINER_", env_nested_delimiter="__", frozen=True, extra="ignore"
    )

    listen: Address = "127.0.0.1:50052"
    store_url: str = Field(description="fsspec URL of the adapter store.")
    max_jobs: int = Field(16, ge=1, description="Most jobs that are trained together.")
    max_waiting: int = Field(256, ge=0, description="Most waiting jobs; one more gets QUEUE_FULL.")
    step_tokens: int = Field(
        0,
        ge=0,
        description="Most tokens of one step; 0: 8192 on a GPU, 1024 on a CPU. Running out of memory lowers it.",
    )
    target_mib: int = Field(256, ge=0, description="Size of the cache of soft targets on the device, in MiB.")
    checkpoint: bool = Field(
        False,
        description="Gradient checkpointing: less memory, about a third more time. If false, it is turned on once a "
        "micro-batch does not fit.",
    )
    four_bit: bool = Field(False, description="Keeps the base in 4 bits (NF4); needs the package bitsandbytes.")
    device_map: str = Field(
        "", description="accelerate's device_map, to split the base model over GPUs: `auto`, `balanced`, …"
    )
    policy_first: bool = Field(True, description="Whether the M-step is admitted before waiting trials.")
    limits: Limits = Limits()
