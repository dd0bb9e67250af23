"""The HTTP service's settings: SEAL_GATEWAY_* in the environment."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from sealkit import limits
from sealkit.rpc.settings import Address, ProcessSettings


class GatewaySettings(ProcessSettings):
    """Its certificate serves HTTPS, and identifies it at the controller, where it is no caller itself."""

    model_config = SettingsConfigDict(env_prefix="SEAL_GATEWAY_", frozen=True, extra="ignore")

    listen: Address = "127.0.0.1:8000"
    controller: Address = "127.0.0.1:50050"
    max_tokens: int = Field(4096, ge=1, le=limits.COMPLETION_TOKENS)
    """Most tokens of an answer; also of one whose request names no number, in a chat."""
    max_body_bytes: int = Field(4 << 20, ge=1024)
    """Most bytes of a request; more gets 413."""
    max_requests: int = Field(512, ge=1)
    """Requests answered at once; one more gets 503. The controller limits each caller on its own."""
    max_connections: int = Field(2048, ge=1)
    """Open connections; one more is closed."""
    answer_seconds: float = Field(600, gt=0)
    """Longest time from a request to the end of its answer."""
    idle_seconds: float = Field(30, gt=0)
    """A connection that sends no whole request for so long is closed, and so is one whose client does not read."""
