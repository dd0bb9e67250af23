"""Seeds: each derives from names (run, round, context, index), never from a clock."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from controller.db.trials import Plan
from sealkit.config import RunConfig
from sealkit.domains.base import Context
from sealkit.resources import TrialPhase
from sealkit.types import Sampling, seed_of


def shuffled(contexts: Sequence[Context], seed: int) -> list[Context]:
    """The contexts in an order that depends only on the run's seed and their ids."""
    order = sorted(contexts, key=lambda context: context.context_id)
    Random(seed_of(seed, "order of contexts")).shuffle(order)
    return order


def group_sampling(config: RunConfig, plan: Plan) -> Sampling:
    """The sampling of a group's self-edits. On held-out contexts every policy gets the same seed, so that comparisons
    of policies are paired; the generator derives each completion's seed from context and index."""
    scope = ("held out",) if plan.phase is TrialPhase.HELD_OUT else ("round", plan.round)
    return config.editor.sampling.changed(seed=seed_of(config.seed, *scope))


def inner_seed(run_seed: int, plan: Plan) -> int:
    """Seed of a trial's inner loop, from round, context and index; on held-out contexts the same for every policy."""
    scope = "held out" if plan.phase is TrialPhase.HELD_OUT else plan.round
    return seed_of(run_seed, "inner loop", scope, plan.context_id, plan.editor, plan.index)
