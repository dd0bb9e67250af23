"""A run's setup: its config, domain and retention suite, all from the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from controller.db.runs import RunPlan
from controller.retry import retry_until_available
from controller.rules.rehearsal import examples_of, split
from controller.rules.seeds import shuffled
from sealkit.config import RunConfig
from sealkit.domains.base import Context, Domain, load_domain
from sealkit.rpc.protocols import Generator
from sealkit.types import Policy, Prompt, Query, TrainingExample, digest_of, seed_of


@dataclass(frozen=True, slots=True)
class Setup:
    """A run's fixed parts. `retention` is what is measured of the suite, `rehearsed` the rest; `rehearsal` is mixed in
    with every training, and empty until the base model's own answers are known (`with_rehearsal_answers`)."""

    run_id: str
    config: RunConfig
    domain: Domain
    retention: tuple[Query, ...]
    retention_digest: str
    rehearsed: tuple[Query, ...]
    rehearsal: tuple[TrainingExample, ...]
    earlier: tuple[Query, ...] = ()
    """Queries of contexts learned earlier in the run, which count into a trial's retention (`with_earlier`)."""

    @property
    def judge(self) -> str:
        """The judge that grades the answers."""
        return self.config.evaluation.judge or self.domain.judge

    def contexts_of_round(self, train: Sequence[Context], round_index: int) -> list[Context]:
        """The next `contexts_per_round` of the shuffled train split, cyclically; a context occurs once in a round."""
        order = shuffled(train, self.config.seed)
        size = min(self.config.contexts_per_round, len(order))
        return [order[(round_index * size + i) % len(order)] for i in range(size)]


def make_setup(plan: RunPlan, plugins: Sequence[str]) -> Setup:
    """Raises InvalidConfig or UnknownDomain if this process does not support the run's config."""
    config = plan.config
    domain = load_domain(config.domain.name, plugins=plugins)(config.domain.options, config.inner_loop)
    # Suites are sorted by kind, and `retention_limit` takes the first ones that the base model answers right.
    mixed = sorted(plan.retention, key=lambda record: seed_of(config.seed, "order of retention", record["id"]))
    rehearsed, retention = split(tuple(map(retention_query, mixed)), config.rehearsal.examples, config.seed)
    rehearsal = examples_of(rehearsed) if config.rehearsal.source == "suite" else ()
    return Setup(plan.run_id, config, domain, retention, digest_of(*retention), rehearsed, rehearsal)


def with_earlier(setup: Setup, contexts: Sequence[Context]) -> Setup:
    """The setup of a trial that also asks the queries of these contexts, which the run learned earlier."""
    earlier = tuple(query for context in contexts for query in setup.domain.queries(context))
    return replace(setup, earlier=earlier, retention_digest=digest_of(*earlier, *setup.retention))


def retention_query(record: Mapping[str, str]) -> Query:
    """A retention record as a query: the bare question."""
    question = record["question"]
    return Query(query_id=record["id"], question=question, gold=record["answer"], prompt=Prompt(user=question))


async def with_rehearsal_answers(setup: Setup, generator: Generator) -> Setup:
    """The setup with the base model's own answers for rehearsal, if the config asks for them. They are sampled
    greedily, so every process gets the same answers if texts do not depend on the batch."""
    if setup.config.rehearsal.source != "model" or not setup.rehearsed or setup.rehearsal:
        return setup
    greedy = setup.config.evaluation.sampling.changed(temperature=0.0, seed=0)
    prompts = [(query.query_id, query.prompt, [0]) for query in setup.rehearsed]

    async def ask() -> dict[str, str]:
        base = Policy(name="base")
        return {said.context_id: said.text async for said in generator.sample(base, prompts, greedy)}

    answers = await retry_until_available(ask, doing="sampling answers for rehearsal")
    return replace(setup, rehearsal=examples_of(setup.rehearsed, answers))
