"""What the judge `model` needs to know: SEAL_EVALUATOR_JUDGE_* in the environment."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class JudgeSettings(BaseSettings):
    """Mixed into the evaluator's settings; read alone by `seal judge`. Limits hold for one process and start anew with
    it; 0 means none."""

    model_config = SettingsConfigDict(env_prefix="SEAL_EVALUATOR_", frozen=True, extra="ignore")

    judge_url: str = Field("", description="Base URL of an OpenAI-compatible endpoint, such as http://host:8000/v1.")
    judge_model: str = Field("", description="Model id that the endpoint knows.")
    judge_api_key_env: str = Field("", description="Name of the environment variable that holds the API key.")
    judge_api_key_file: str = Field("", description="File that holds the API key.")
    judge_cache_url: str = Field(
        "sqlite:///.seal/judge.db",
        description="SQLAlchemy URL of the verdicts it gave; sqlite:// keeps them in memory.",
    )
    judge_requests_per_minute: int = Field(600, ge=0, description="More have to wait.")
    judge_token_limit: int = Field(10_000_000, ge=0, description="Tokens after which it says ungraded.")
    judge_cost_limit: float = Field(0, ge=0, description="Money after which it says ungraded; needs the prices.")
    judge_prompt_price: float = Field(0, ge=0, description="Price of a million prompt tokens.")
    judge_completion_price: float = Field(0, ge=0, description="Price of a million completion tokens.")
    judge_concurrency: int = Field(16, ge=1, description="Requests under way at once.")
    judge_answer_seconds: float = Field(60, gt=0, description="How long one request may take.")
    judge_retries: int = Field(
        4, ge=0, le=20, description="Attempts after the first where the endpoint is busy or away."
    )
