"""The three model services as the controller sees them, and the check that they have the same model."""

from __future__ import annotations

from dataclasses import dataclass

from sealkit.errors import ModelMismatch, Unsupported
from sealkit.rpc.protocols import Evaluator, Generator, Trainer
from sealkit.types import ModelInfo


@dataclass(frozen=True, slots=True)
class Services:
    """The services that a worker calls. Tests pass fakes in here."""

    generator: Generator
    trainer: Trainer
    evaluator: Evaluator

    async def base_model(self, *, policy_moves: bool = False, divergence: bool = False) -> ModelInfo:
        """The base model of all three. Raises ModelMismatch naming those that differ; Unsupported if `policy_moves` and
        the generator can only use the policies that its server was started with, or if `divergence` is needed and the
        evaluator's backend cannot measure it; Unavailable.
        """
        held = {
            "generator": await self.generator.info(),
            "trainer": await self.trainer.info(),
            "evaluator": await self.evaluator.info(),
        }
        if len({info.digest for info in held.values()}) > 1:
            shown = ", ".join(f"{name} has {info.name} ({info.digest[:12]})" for name, info in held.items())
            raise ModelMismatch(f"the services have different base models: {shown}; start all with the same model")
        if policy_moves and held["generator"].build.get("adapters") == "fixed":
            raise Unsupported(
                "the generator's backend loads no adapters while it runs, so it could not use the policies that this "
                "run trains; give it backend vllm or transformers"
            )
        if divergence and held["evaluator"].build.get("divergence") == "none":
            raise Unsupported(
                "the reward of this run includes the KL to the base model, which the evaluator's backend cannot "
                "measure; set reward.divergence_weight = 0, or give the evaluator backend transformers"
            )
        return held["trainer"]

    async def close(self) -> None:
        """Closes the channels."""
        await self.generator.close()
        await self.trainer.close()
        await self.evaluator.close()
