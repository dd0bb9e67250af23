"""The generator's settings: SEAL_GENERATOR_* in the environment."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from sealkit.backends.factory import BackendSettings
from sealkit.rpc.settings import Address, ServerSettings


class GeneratorSettings(ServerSettings, BackendSettings):
    model_config = SettingsConfigDict(env_prefix="SEAL_GENERATOR_", frozen=True, extra="ignore")

    listen: Address = "127.0.0.1:50051"
    editors_file: str = Field("", description="TOML file of outside editors (`generator_svc.editors`); empty: none.")
