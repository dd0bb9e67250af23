"""What a version is made of, from everything that was kept, so that later texts do not overwrite earlier ones: one
training on all of it, or routes to the adapters of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controller.db.trials import Plan
from controller.rules.seeds import inner_seed
from controller.rules.setup import Setup
from sealkit import limits
from sealkit.domains.base import Context, Examines, spec_of
from sealkit.errors import LimitExceeded
from sealkit.resources import Trial
from sealkit.routing import Route
from sealkit.types import TrainingSpec, seed_of


def spec_of_trial(setup: Setup, context: Context, trial: Trial) -> TrainingSpec:
    """The spec that the trial of a self-edit was trained on, from its stored texts; `setup` is that of its run. Raises
    Rejected if this version of the domain makes none of them."""
    return setup.mixed(_own_spec(setup, context, trial))


def consolidated(setup: Setup, contexts: Mapping[str, Context], kept: Sequence[Trial], t: int) -> TrainingSpec:
    """The spec of one adapter on the examples of all `kept` trials, oldest first, with the run's rehearsal and anchors.
    `contexts`: by trial name. A teacher's answers are those of the trials. Shape and hyper-parameters are the config's,
    not those that single self-edits chose.

    Raises LimitExceeded if there are more examples than one spec may have.
    """
    examples = [example for trial in kept for example in _own_spec(setup, contexts[trial.name], trial).examples]
    if len(examples) > limits.EXAMPLES:
        raise LimitExceeded(
            f"the kept trials have {len(examples)} examples, but an adapter has at most {limits.EXAMPLES}; start a new "
            'run, or commit by joining (adapt.commit = "join")',
            metadata={"limit": "examples", "allowed": str(limits.EXAMPLES), "asked": str(len(examples))},
        )
    inner = setup.config.inner_loop
    return setup.mixed(
        TrainingSpec(
            examples=tuple(examples),
            lora=inner.lora,
            optimisation=inner.optimisation,
            distillation=inner.distillation,
            append_eos=inner.append_eos,
            seed=seed_of(setup.config.seed, "consolidation", t),
        )
    )


def routes_to(setup: Setup, contexts: Mapping[str, Context], kept: Sequence[Trial]) -> list[Route]:
    """The adapters of all `kept` trials, oldest first, with what their contexts say. `contexts`: by trial name."""
    assert isinstance(setup.domain, Examines)  # checked when the run was created
    routes = []
    for trial in kept:
        assert trial.adapter is not None  # only trials with a score are kept
        routes.append(Route(adapter=trial.adapter, text=setup.domain.passage_text(contexts[trial.name])))
    return routes


def _own_spec(setup: Setup, context: Context, trial: Trial) -> TrainingSpec:
    """The domain's spec of a trial's self-edit, without what the run mixes in."""
    seed = inner_seed(setup.config.seed, Plan.of(trial))
    return spec_of(setup.domain, context, trial.completion, trial.teacher_answers, seed)
