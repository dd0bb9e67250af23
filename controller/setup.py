"""What a run needs beside its trials: its config, its domain, its retention suite; all from the record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from controller.record.runs import RunPlan
from sealkit.config import RunConfig, parse_config
from sealkit.domain import Context, Domain, load_domain
from sealkit.types import Prompt, Query, digest_of, seed_of


@dataclass(frozen=True, slots=True)
class Setup:
    """A run's fixed parts."""

    run_id: str
    config: RunConfig
    domain: Domain
    retention: tuple[Query, ...]
    retention_digest: str
    start_policy: str

    @property
    def judge(self) -> str:
        """Who grades the answers."""
        return self.config.evaluation.judge or self.domain.judge

    def contexts_of_round(self, train: Sequence[Context], round_index: int) -> list[Context]:
        """The next `contexts_per_round` of the shuffled train split, going round; a context comes once a round."""
        order = shuffled(train, self.config.seed)
        size = min(self.config.contexts_per_round, len(order))
        return [order[(round_index * size + i) % len(order)] for i in range(size)]


def make_setup(plan: RunPlan, plugins: Sequence[str]) -> Setup:
    """Raises InvalidConfig or UnknownDomain where this process cannot do what the record says."""
    config = parse_config(plan.config, source=f"runs/{plan.run_id}")
    domain = load_domain(config.domain.name, plugins=plugins)(config.domain.options, config.inner_loop)
    # Suites are written kind by kind, and `retention_limit` takes the first that the base answers right.
    mixed = sorted(plan.retention, key=lambda record: seed_of(config.seed, "order of retention", record["id"]))
    retention = tuple(map(retention_query, mixed))
    return Setup(plan.run_id, config, domain, retention, digest_of(*retention), plan.start_policy)


def shuffled(contexts: Sequence[Context], seed: int) -> list[Context]:
    """The contexts in an order that the run's seed and their ids alone decide."""
    order = sorted(contexts, key=lambda context: context.context_id)
    Random(seed_of(seed, "order of contexts")).shuffle(order)
    return order


def retention_query(record: Mapping[str, str]) -> Query:
    """A retention record as a query: the bare question."""
    question = record["question"]
    return Query(query_id=record["id"], question=question, gold=record["answer"], prompt=Prompt(user=question))


def planned_trials(config: RunConfig, *, train: int, held_out: int) -> int:
    """Trials of a whole run in which every round moves the policy; a round that does not takes its own off."""
    passage = int(config.passage_only)
    each_round = min(config.contexts_per_round, train) * (config.editor.k + passage)
    scored = held_out * config.held_out.samples * (config.rounds + 1)
    return config.rounds * each_round + scored + (held_out * passage if config.held_out.samples else 0)
