"""Settings of the judge `model`: SEAL_EVALUATOR_JUDGE_* in the environment."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class JudgeSettings(BaseSettings):
    """Mixed into the evaluator's settings; read separately by `seal judge`. Limits hold for one process and restart
    with it; 0 means none."""

    model_config = SettingsConfigDict(env_prefix="SEAL_EVALUATOR_", frozen=True, extra="ignore")

    judge_url: str = Field("", description="Base URL of an OpenAI-compatible endpoint, such as http://host:8000/v1.")
    judge_model: str = Field("", description="Model id at the endpoint.")
    judge_api_key_env: str = Field("", description="Name of the environment variable that holds the API key.")
    judge_api_key_file: str = Field("", description="File that holds the API key.")
    judge_cache_url: str = Field(
        "sqlite:///.seal/judge.db",
        description="SQLAlchemy URL of the verdict cache; sqlite:// is in memory.",
    )
    judge_requests_per_minute: int = Field(600, ge=0, description="Further requests wait.")
    judge_token_limit: int = Field(10_000_000, ge=0, description="Tokens after which verdicts are ungraded.")
    judge_cost_limit: float = Field(0, ge=0, description="Money after which verdicts are ungraded; needs the prices.")
    judge_prompt_price: float = Field(0, ge=0, description="Price per million prompt tokens.")
    judge_completion_price: float = Field(0, ge=0, description="Price per million completion tokens.")
    judge_concurrency: int = Field(16, ge=1, description="Concurrent requests.")
    judge_answer_seconds: float = Field(60, gt=0, description="Timeout of one request.")
    judge_retries: int = Field(
        4, ge=0, le=20, description="Attempts after the first if the endpoint is busy or unavailable."
    )
