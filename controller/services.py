"""The three model services as the controller sees them, and whether they hold the same model."""

from __future__ import annotations

from dataclasses import dataclass

from sealkit.errors import ModelMismatch
from sealkit.rpc.protocols import Evaluator, Generator, Trainer
from sealkit.types import ModelInfo


@dataclass(frozen=True, slots=True)
class Services:
    """What a worker drives. Tests put fakes in here."""

    generator: Generator
    trainer: Trainer
    evaluator: Evaluator

    async def base_model(self) -> ModelInfo:
        """The base model that all three hold. Raises ModelMismatch naming those that differ; Unavailable."""
        held = {
            "generator": await self.generator.info(),
            "trainer": await self.trainer.info(),
            "evaluator": await self.evaluator.info(),
        }
        if len({info.digest for info in held.values()}) > 1:
            shown = ", ".join(f"{name} holds {info.name} ({info.digest[:12]})" for name, info in held.items())
            raise ModelMismatch(f"the services hold different base models: {shown}; start all with the same model")
        return held["trainer"]

    async def close(self) -> None:
        """Closes the channels."""
        await self.generator.close()
        await self.trainer.close()
        await self.evaluator.close()
