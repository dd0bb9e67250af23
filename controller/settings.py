"""Settings of a controller process. Each is an environment variable SEAL_CONTROLLER_*."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode, SettingsConfigDict

from sealkit.rpc.server import ServerSettings
from sealkit.rpc.settings import Address, Target, split


class ControllerSettings(ServerSettings):
    """Settings of the API and the worker."""

    model_config = SettingsConfigDict(env_prefix="SEAL_CONTROLLER_", frozen=True, extra="ignore")

    listen: Address = "127.0.0.1:50050"
    max_calls: int = Field(200, ge=1)
    """Concurrent calls of one caller: every watch stream polls the database."""
    max_dataset_mib: int = Field(1024, ge=1, le=65536)
    """Most of a run's request with its dataset, which clients send in parts of a few MiB."""
    database_url: str = "sqlite:///.seal/controller.db"
    """sqlite:///PATH, or postgresql+psycopg://USER:PASSWORD@HOST/NAME."""
    redis_url: str = "redis://127.0.0.1:6379/0"
    """redis://, rediss:// (TLS), unix:// or redis+sentinel://; see `sealkit.redis_url`."""
    queue: str = "seal:trials"
    """Prefix of the queue's keys; controllers that share a Redis need different ones."""
    generator: Target = "127.0.0.1:50051"
    trainer: Target = "127.0.0.1:50052"
    evaluator: Target = "127.0.0.1:50053"
    """Each of the three is `host:port`, or several separated by commas; a host may be a DNS name with many addresses.
    It is resolved again every few seconds, so replicas can be added and removed during a run."""
    call_seconds: float = Field(3600, gt=0)
    """Deadline of a call to one of the three, in seconds."""
    worker_concurrency: int = Field(16, ge=1, le=10000)
    """Most trials that a worker has in progress; fewer for a while after a service reports that it is full."""
    lease_seconds: float = Field(20, gt=0)
    """A worker without a heartbeat for this many seconds is dead, and others take over its work."""
    max_deliveries: int = Field(8, ge=1)
    """Number of attempts at a trial before it fails."""
    callers_file: str = ""
    """TOML file of the API's callers and their roles (`sealkit.rpc.authority`); required with TLS."""
    editors: Annotated[tuple[str, ...], NoDecode, BeforeValidator(split)] = ()
    """Outside editors that a run may use as arms, separated by commas: those in the generator's editors file."""
    domain_plugins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(split)] = ()
    """`module:OBJECT` references, separated by commas, that a run may use as its domain."""


class WorkerSettings(ControllerSettings):
    """A worker without the API listens only for health checks, by default on any free port."""

    listen: Address = "127.0.0.1:0"
