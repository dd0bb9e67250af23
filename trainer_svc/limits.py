"""Limits of one job."""

from __future__ import annotations

from pydantic import Field

from sealkit.errors import LimitExceeded
from sealkit.types import Value


class Limits(Value):
    """Limits of one job; a job over a limit is refused with its name."""

    max_examples: int = Field(10_000, ge=1, description="Examples, rehearsal included.")
    max_tokens: int = Field(2_000_000, ge=1, description="Tokens of one pass over the examples.")
    max_steps: int = Field(20_000, ge=1, description="Optimiser steps.")
    max_rank: int = Field(256, ge=1, description="Rank of the adapter.")

    def check(self, *, examples: int = 0, tokens: int = 0, steps: int = 0, rank: int = 0) -> None:
        """Raises LimitExceeded, naming the limit, what was asked for and what is allowed."""
        asked = {"max_examples": examples, "max_tokens": tokens, "max_steps": steps, "max_rank": rank}
        for limit, amount in asked.items():
            allowed = getattr(self, limit)
            if amount > allowed:
                raise LimitExceeded(
                    f"the job has {amount} {limit.removeprefix('max_')}, but the trainer's {limit} is {allowed}; "
                    f"reduce it or raise SEAL_TRAINER_LIMITS__{limit.upper()}",
                    metadata={"limit": limit, "allowed": str(allowed), "asked": str(amount)},
                )
