"""The three model services as the controller sees them, and whether they hold the same model."""

from __future__ import annotations

from dataclasses import dataclass

from sealkit.errors import ModelMismatch, Unsupported
from sealkit.rpc.protocols import Evaluator, Generator, Trainer
from sealkit.types import ModelInfo


@dataclass(frozen=True, slots=True)
class Services:
    """What a worker drives. Tests put fakes in here."""

    generator: Generator
    trainer: Trainer
    evaluator: Evaluator

    async def base_model(self, *, policy_moves: bool = False, divergence: bool = False) -> ModelInfo:
        """The base model that all three hold. Raises ModelMismatch naming those that differ; Unsupported where
        `policy_moves`, and the generator can only write as the policies that its server was started with, or where the
        `divergence` is asked for and the evaluator's backend tells none; Unavailable.
        """
        held = {
            "generator": await self.generator.info(),
            "trainer": await self.trainer.info(),
            "evaluator": await self.evaluator.info(),
        }
        if len({info.digest for info in held.values()}) > 1:
            shown = ", ".join(f"{name} holds {info.name} ({info.digest[:12]})" for name, info in held.items())
            raise ModelMismatch(f"the services hold different base models: {shown}; start all with the same model")
        if policy_moves and held["generator"].build.get("adapters") == "fixed":
            raise Unsupported(
                "the generator's backend takes no adapters while it runs, so it could not write as the policies that "
                "this run trains; give it backend vllm or transformers"
            )
        if divergence and held["evaluator"].build.get("divergence") == "none":
            raise Unsupported(
                "the reward of this run weighs the KL to the base model, which the evaluator's backend does not tell; "
                "set reward.divergence_weight = 0, or give the evaluator backend transformers"
            )
        return held["trainer"]

    async def close(self) -> None:
        """Closes the channels."""
        await self.generator.close()
        await self.trainer.close()
        await self.evaluator.close()
