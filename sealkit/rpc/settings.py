"""Where a service listens and how it runs; the environment says it. Each service subclasses this with its prefix."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from sealkit.rpc.tls import Identity, identity_of


def _address(value: str) -> str:
    """An address that gRPC can listen on: `host:port`, `[v6]:port` or `unix:path`."""
    host, _, port = value.rpartition(":")
    if value.startswith("unix:") or (host and port.isdecimal() and int(port) < 65536):
        return value
    raise ValueError(f"{value!r} is not host:port")


_SECRETS = Path("/run/secrets")


def split(value: object) -> object:
    """A list as an environment variable holds it: separated by commas."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _target(value: str) -> str:
    for part in value.split(","):
        _address(part.strip())
    return value


Address = Annotated[str, AfterValidator(_address)]
Target = Annotated[str, AfterValidator(_target)]
"""The replicas of a service, as `sealkit.rpc.replicas` takes them: addresses separated by commas."""


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


class ServerSettings(BaseSettings):
    """What every service has; addresses are `host:port`, port 0 takes a free one."""

    # Secrets come as files named like their variables, which Docker and Kubernetes mount there.
    model_config = SettingsConfigDict(frozen=True, extra="ignore", secrets_dir=_SECRETS if _SECRETS.is_dir() else None)

    listen: Address = "127.0.0.1:0"
    metrics_listen: Annotated[str, AfterValidator(lambda value: value and _address(value))] = ""
    """Address of the Prometheus endpoint; empty: off."""
    grace_seconds: float = Field(20, ge=0)
    """How long calls under way may take to end once the service was told to stop."""
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)] = "INFO"
    log_format: Literal["json", "console"] = "json"
    max_message_mib: int = Field(64, ge=1, le=1024)
    max_calls: int = Field(2000, ge=1)
    """Calls that one caller may have under way at once; one more gets RESOURCE_EXHAUSTED."""
    tls_ca: str = ""
    """PEM file of the authorities that callers and called services must come from. Empty: no TLS, for one machine."""
    tls_cert: str = ""
    tls_key: str = ""
    plaintext: bool = False
    """Whether to listen without TLS where other machines reach it: anybody there may then do anything."""
    tls_client_certificates: bool = True
    """Whether a caller must show a certificate; without, callers are known by their tokens."""
    tls_peers: Annotated[tuple[str, ...], NoDecode, BeforeValidator(split)] = ("controller", "worker", "operator")
    """Names of the certificates that may call a model service, separated by commas."""

    @property
    def local(self) -> bool:
        """Whether only this machine reaches the address."""
        host = self.listen.rpartition(":")[0].strip("[]")
        return self.listen.startswith("unix:") or host in ("localhost", "::1") or host.startswith("127.")

    @property
    def identity(self) -> Identity | None:
        """Who this process is; None without TLS. Raises InvalidConfig where the settings are not whole."""
        return identity_of(self.tls_ca, self.tls_cert, self.tls_key)


def explain(error: ValidationError) -> str:
    """Faulty settings by the names of their environment variables, for a person."""
    prefix = next((s.model_config.get("env_prefix", "") for s in _subclasses() if s.__name__ == error.title), "")
    faults = ((prefix + "__".join(str(part) for part in e["loc"])).upper() + f": {e['msg']}" for e in error.errors())
    return "; ".join(faults)


def _subclasses() -> Iterator[type[BaseSettings]]:
    waiting: list[type[BaseSettings]] = [BaseSettings]
    while waiting:
        waiting.extend(found := waiting.pop().__subclasses__())
        yield from found
