"""Where the controller's things are. Every setting is an environment variable SEAL_CONTROLLER_*."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode, SettingsConfigDict

from sealkit.rpc.server import ServerSettings
from sealkit.rpc.settings import Address, Target, split


class ControllerSettings(ServerSettings):
    """API and worker share these."""

    model_config = SettingsConfigDict(env_prefix="SEAL_CONTROLLER_", frozen=True, extra="ignore")

    listen: Address = "127.0.0.1:50050"
    max_calls: int = Field(200, ge=1)
    """Calls that one caller may have under way at once: every watch stream asks the record again and again."""
    database_url: str = "sqlite:///.seal/controller.db"
    """sqlite:///PATH, or postgresql+psycopg://USER:PASSWORD@HOST/NAME."""
    redis_url: str = "redis://127.0.0.1:6379/0"
    """redis://, rediss:// (TLS), unix:// or redis+sentinel://; see `sealkit.redis_url`."""
    queue: str = "seal:trials"
    """What the names of the queue's keys begin with; two controllers that share a Redis need two."""
    generator: Target = "127.0.0.1:50051"
    trainer: Target = "127.0.0.1:50052"
    evaluator: Target = "127.0.0.1:50053"
    """Each of the three is `host:port`, or several of them separated by commas; a host may be a DNS name with many
    addresses, looked up again every few seconds: replicas may come and go while a run goes on."""
    call_seconds: float = Field(3600, gt=0)
    """Deadline of a call to one of the three."""
    worker_concurrency: int = Field(16, ge=1, le=10000)
    """Trials that a worker has in flight at most; fewer for a while where the services say that they are full."""
    lease_seconds: float = Field(20, gt=0)
    """A worker that gave no sign of life for so long is dead: others take what it had."""
    max_deliveries: int = Field(8, ge=1)
    """Times that a trial is handed to a worker before it counts as failed."""
    callers_file: str = ""
    """TOML file of who may call the API, and in what role (`sealkit.rpc.authority`); needed with TLS."""
    editors: Annotated[tuple[str, ...], NoDecode, BeforeValidator(split)] = ()
    """Outside editors that a run may name among its arms, by commas: those in the generator's editors file."""
    domain_plugins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(split)] = ()
    """`module:OBJECT` references, separated by commas, that a run may name as its domain."""


class WorkerSettings(ControllerSettings):
    """A worker alone: it listens for health checks only, on any free port unless told where."""

    listen: Address = "127.0.0.1:0"
