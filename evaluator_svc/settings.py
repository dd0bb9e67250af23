"""The evaluator's settings: SEAL_EVALUATOR_* in the environment."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from sealkit.backends.factory import BackendSettings
from sealkit.judges.settings import JudgeSettings
from sealkit.rpc.settings import Address, ServerSettings


class EvaluatorSettings(ServerSettings, BackendSettings, JudgeSettings):
    model_config = SettingsConfigDict(env_prefix="SEAL_EVALUATOR_", frozen=True, extra="ignore")

    listen: Address = "127.0.0.1:50053"
    kept_verdicts: int = Field(100_000, ge=1, description="Verdicts on policies in the cache.")
