"""What a run needs beside its trials: its config, its domain, its retention suite; all from the record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pydantic import Field

from controller.db.database import storable
from controller.db.runs import RunPlan
from controller.retry import retry_until_available
from controller.rules.anchors import anchors_of, answering
from controller.rules.rehearsal import examples_of, split
from controller.rules.seeds import shuffled
from sealkit.config import RunConfig
from sealkit.domains.base import Context, Domain, load_domain
from sealkit.resources import Editor
from sealkit.rpc.protocols import Generator
from sealkit.types import (
    Anchoring,
    Policy,
    Prompt,
    Query,
    Sampling,
    TrainingExample,
    TrainingSpec,
    Value,
    digest_of,
    seed_of,
)

BASE = Policy(name=Editor.BASE)
"""The bare base model, where a policy is wanted."""


class BaseAnswers(Value):
    """What the base model itself says, by id, to what is rehearsed and to the anchors. Asked once a run and kept in the
    record, so that every process trains on the same."""

    rehearsal: dict[str, str] = Field(default_factory=dict)
    anchors: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Setup:
    """A run's fixed parts. `retention` is what is measured of the suite; `rehearsed` and `anchored` (prompts by id)
    never are. `rehearsal` and `anchors` are mixed in with every training; what the base model says of them is missing
    until it was asked (`asks_base`)."""

    run_id: str
    config: RunConfig
    domain: Domain
    retention: tuple[Query, ...]
    retention_digest: str
    rehearsed: tuple[Query, ...]
    rehearsal: tuple[TrainingExample, ...]
    anchored: Mapping[str, Prompt] = field(default_factory=dict)
    anchors: tuple[TrainingExample, ...] = ()
    asks_base: bool = False
    """Whether `base_answers` are wanted before anything is trained."""
    earlier: tuple[Query, ...] = ()
    """Queries of contexts learned earlier in the run, which count into a trial's retention (`with_earlier`)."""

    @property
    def judge(self) -> str:
        """Who grades the answers."""
        return self.config.evaluation.judge or self.domain.judge

    def started_from(self, policy: Policy) -> Policy:
        """What the adapter of a self-edit that `policy` wrote is trained and evaluated on."""
        return BASE if self.config.inner_loop.start_from == "base" else policy

    def mixed(self, spec: TrainingSpec) -> TrainingSpec:
        """A spec with what every training of the run has against forgetting."""
        anchoring = self.config.inner_loop.anchors.anchoring if self.anchors else Anchoring()
        return spec.changed(rehearsal=self.rehearsal, anchors=self.anchors, anchoring=anchoring)

    def contexts_of_round(self, train: Sequence[Context], round_index: int) -> list[Context]:
        """The next `contexts_per_round` of the shuffled train split, going round; a context comes once a round."""
        order = shuffled(train, self.config.seed)
        size = min(self.config.contexts_per_round, len(order))
        return [order[(round_index * size + i) % len(order)] for i in range(size)]


def make_setup(plan: RunPlan, plugins: Sequence[str]) -> Setup:
    """Raises InvalidConfig or UnknownDomain where this process cannot do what the record says."""
    config = plan.config
    domain = load_domain(config.domain.name, plugins=plugins)(config.domain.options, config.inner_loop)
    # Suites are written kind by kind, and `retention_limit` takes the first that the base answers right.
    mixed = sorted(plan.retention, key=lambda record: seed_of(config.seed, "order of retention", record["id"]))
    suite = tuple(map(retention_query, mixed))
    _, retention = split(suite, set_aside(config), config.seed)
    rehearsed, _ = split(suite, config.rehearsal.examples, config.seed)
    setup = Setup(
        run_id=plan.run_id,
        config=config,
        domain=domain,
        retention=retention,
        retention_digest=digest_of(*retention),
        rehearsed=rehearsed,
        rehearsal=examples_of(rehearsed) if config.rehearsal.source == "suite" else (),
        anchored=_anchored(config, suite, plan.anchors),
    )
    if plan.base_answers is not None:
        return with_base_answers(setup, BaseAnswers.from_stored(plan.base_answers))
    own_words = bool(rehearsed) and config.rehearsal.source == "model"
    return replace(setup, asks_base=own_words or bool(setup.anchored))


def set_aside(config: RunConfig) -> int:
    """How many questions of the retention suite are trained on, and so never measured."""
    anchors = config.inner_loop.anchors
    return max(config.rehearsal.examples, anchors.count if anchors.source == "suite" else 0)


def _anchored(config: RunConfig, suite: Sequence[Query], drawn: Sequence[Mapping[str, str]]) -> dict[str, Prompt]:
    anchors = config.inner_loop.anchors
    if anchors.source == "suite":
        return {query.query_id: query.prompt for query in split(suite, anchors.count, config.seed)[0]}
    return {record["id"]: Prompt(user=record["prompt"]) for record in drawn}


def with_earlier(setup: Setup, contexts: Sequence[Context]) -> Setup:
    """The setup of a trial that is asked the queries of these contexts again, learned earlier in the run."""
    earlier = tuple(query for context in contexts for query in setup.domain.queries(context))
    return replace(setup, earlier=earlier, retention_digest=digest_of(*earlier, *setup.retention))


def retention_query(record: Mapping[str, str]) -> Query:
    """A retention record as a query: the bare question."""
    question = record["question"]
    return Query(query_id=record["id"], question=question, gold=record["answer"], prompt=Prompt(user=question))


async def base_answers(setup: Setup, generator: Generator) -> BaseAnswers:
    """What the base model says to the anchors, and to what is rehearsed where the config asks for its own words. It is
    asked greedily, and waited for."""
    own_words = setup.rehearsed if setup.config.rehearsal.source == "model" else ()
    greedy = setup.config.evaluation.sampling.changed(temperature=0.0, seed=0)
    asked = {query.query_id: query.prompt for query in own_words}

    async def ask(prompts: Mapping[str, Prompt], sampling: Sampling) -> dict[str, str]:
        if not prompts:
            return {}
        wanted = [(name, prompt, [0]) for name, prompt in prompts.items()]
        return {said.context_id: storable(said.text) async for said in generator.sample(BASE, wanted, sampling)}

    async def ask_both() -> BaseAnswers:
        return BaseAnswers(
            rehearsal=await ask(asked, greedy),
            anchors=await ask(setup.anchored, answering(setup.config.inner_loop.anchors)),
        )

    return await retry_until_available(ask_both, doing="asking the base model what must stay as it is")


def with_base_answers(setup: Setup, answers: BaseAnswers) -> Setup:
    """The setup with what the base model was asked for."""
    own_words = setup.config.rehearsal.source == "model"
    return replace(
        setup,
        rehearsal=examples_of(setup.rehearsed, answers.rehearsal) if own_words else setup.rehearsal,
        anchors=anchors_of(setup.anchored, answers.anchors),
        asks_base=False,
    )
