"""Settings of a service process, from the environment. Each service subclasses this with its prefix."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from sealkit.errors import InvalidConfig
from sealkit.rpc.tls import Identity, identity_of
from sealkit.urls import check_address, check_host_port

_SECRETS = Path("/run/secrets")


def split(value: object) -> object:
    """A list in an environment variable, separated by commas."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _target(value: str) -> str:
    for part in value.split(","):
        check_address(part.strip())
    return value


Address = Annotated[str, AfterValidator(check_address)]
Target = Annotated[str, AfterValidator(_target)]
"""The replicas of a service, as `sealkit.rpc.replicas` takes them: addresses separated by commas."""


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


class ProcessSettings(BaseSettings):
    """Settings of every process that serves something; addresses are `host:port`, port 0 takes a free one."""

    # Secrets are files named like their variables; Docker and Kubernetes mount them there.
    model_config = SettingsConfigDict(frozen=True, extra="ignore", secrets_dir=_SECRETS if _SECRETS.is_dir() else None)

    listen: Address = "127.0.0.1:0"
    metrics_listen: Annotated[str, AfterValidator(lambda value: value and check_host_port(value))] = ""
    """Address of the Prometheus endpoint; empty: off."""
    grace_seconds: float = Field(20, ge=0)
    """Seconds that running calls may take to end after the stop signal."""
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)] = "INFO"
    log_format: Literal["json", "console"] = "json"
    max_message_mib: int = Field(64, ge=1, le=1024)
    tls_ca: str = ""
    """PEM file of the authorities for the certificates of callers and called services. Empty: no TLS, for one
    machine."""
    tls_cert: str = ""
    tls_key: str = ""
    plaintext: bool = False
    """Whether to listen without TLS on an address that other machines reach: anyone there is then an admin."""
    stack_file: str = ""
    """State file of the embedded stack (set by `seal up`): the process ends once the file no longer lists it."""

    @property
    def local(self) -> bool:
        """Whether only this machine reaches the address."""
        host = self.listen.rpartition(":")[0].strip("[]")
        return self.listen.startswith("unix:") or host in ("localhost", "::1") or host.startswith("127.")

    @property
    def identity(self) -> Identity | None:
        """This process's identity; None without TLS. Raises InvalidConfig if the settings are incomplete."""
        return identity_of(self.tls_ca, self.tls_cert, self.tls_key)

    def check_open(self) -> None:
        """Raises InvalidConfig if other machines could reach it without TLS."""
        if self.identity is None and not self.local and not self.plaintext:
            raise InvalidConfig(
                f"{self.listen} is reachable from other machines, and without TLS anyone there is an admin: set "
                "tls_ca, tls_cert and tls_key, or listen on 127.0.0.1 (or set plaintext on a closed network)"
            )


class ServerSettings(ProcessSettings):
    """Settings of every gRPC service."""

    max_calls: int = Field(2000, ge=1)
    """Concurrent calls of one caller; one more gets RESOURCE_EXHAUSTED."""
    tls_client_certificates: bool = True
    """Whether a caller must present a certificate; without, callers are identified by their tokens."""
    tls_peers: Annotated[tuple[str, ...], NoDecode, BeforeValidator(split)] = ("controller", "worker", "operator")
    """Names of the certificates that may call a model service, separated by commas."""


def explain(error: ValidationError) -> str:
    """A message that lists the faulty settings by their environment variables."""
    prefix = next((s.model_config.get("env_prefix", "") for s in _subclasses() if s.__name__ == error.title), "")
    faults = ((prefix + "__".join(str(part) for part in e["loc"])).upper() + f": {e['msg']}" for e in error.errors())
    return "; ".join(faults)


def _subclasses() -> Iterator[type[BaseSettings]]:
    waiting: list[type[BaseSettings]] = [BaseSettings]
    while waiting:
        waiting.extend(found := waiting.pop().__subclasses__())
        yield from found
