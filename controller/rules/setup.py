"""A run's setup: its config, domain and retention suite, all from the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import Field

from controller.db.database import storable
from controller.db.runs import RunPlan
from controller.retry import retry_until_available
from controller.rules.anchors import anchors_of, answering
from controller.rules.rehearsal import examples_of, split
from controller.rules.seeds import shuffled
from controller.rules.template import templated
from sealkit.config import RunConfig
from sealkit.domains.base import Context, Domain, Study, load_domain, study_of
from sealkit.errors import OnlyReasoning
from sealkit.reasoning import Said, no_answer
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
"""The bare base model as a policy."""
_QUESTIONS = "evaluation.chat_template_kwargs"


class BaseAnswers(Value):
    """The base model's own answers, by id, to rehearsed questions and to anchors. Sampled once per run and stored in
    the database, so that every process trains on the same texts."""

    rehearsal: dict[str, str] = Field(default_factory=dict)
    anchors: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Setup:
    """A run's fixed parts. `retention`: the measured part of the suite; `rehearsed` and `anchored` (prompts by id) are
    never measured. `rehearsal` and `anchors` are the examples mixed into every training; they are incomplete until the
    base model has answered (`asks_base`)."""

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
    """Whether `base_answers` are needed before any training."""
    earlier: tuple[Query, ...] = ()
    """Queries of contexts learned earlier in the run, which are part of a trial's retention (`with_earlier`)."""

    @property
    def judge(self) -> str:
        """The judge that grades the answers."""
        return self.config.evaluation.judge or self.domain.judge

    def started_from(self, policy: Policy) -> Policy:
        """The policy that the adapter of a self-edit by `policy` is trained and evaluated on."""
        return BASE if self.config.inner_loop.start_from == "base" else policy

    def prompt(self, context: Context) -> Prompt:
        """The editor's prompt for a context."""
        return templated(self.domain.prompt(context), self.config.editor.chat_template_kwargs)

    def queries(self, context: Context) -> tuple[Query, ...]:
        """The held-out queries of a context."""
        return templated(tuple(self.domain.queries(context)), self.config.evaluation.chat_template_kwargs)

    def study(self, context: Context, completion: str) -> Study | None:
        """The study of a completion, if it has one. Raises Rejected."""
        return templated(study_of(self.domain, context, completion), self.config.evaluation.chat_template_kwargs)

    def mixed(self, spec: TrainingSpec) -> TrainingSpec:
        """A domain's spec as the run trains it: with the chat template's arguments, the rehearsal and the anchors."""
        anchoring = self.config.inner_loop.anchors.anchoring if self.anchors else Anchoring()
        spec = templated(spec, self.config.evaluation.chat_template_kwargs)
        return spec.changed(rehearsal=self.rehearsal, anchors=self.anchors, anchoring=anchoring)

    def contexts_of_round(self, train: Sequence[Context], round_index: int) -> list[Context]:
        """The next `contexts_per_round` of the shuffled train split, cyclically; a context occurs once in a round."""
        order = shuffled(train, self.config.seed)
        size = min(self.config.contexts_per_round, len(order))
        return [order[(round_index * size + i) % len(order)] for i in range(size)]


def domain_of(config: RunConfig, plugins: Sequence[str]) -> Domain:
    """The domain of a run. Raises InvalidConfig or UnknownDomain if this process does not support the run's config."""
    return load_domain(config.domain.name, plugins=plugins)(config.domain.options, config.inner_loop)


def make_setup(plan: RunPlan, plugins: Sequence[str]) -> Setup:
    """Raises what `domain_of` raises."""
    config = plan.config
    domain = domain_of(config, plugins)
    # Suites are sorted by kind, and `retention_limit` takes the first ones that the base model answers right.
    mixed = sorted(plan.retention, key=lambda record: seed_of(config.seed, "order of retention", record["id"]))
    suite = templated(tuple(map(retention_query, mixed)), config.evaluation.chat_template_kwargs)
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


async def complete_setup(plan: RunPlan, plugins: Sequence[str], generator: Generator) -> Setup:
    """The setup with the base model's answers. Usually the run's driver has stored them; of a run of an older version
    they are sampled again. Raises what `make_setup` and `base_answers` raise."""
    setup = make_setup(plan, plugins)
    return with_base_answers(setup, await base_answers(setup, generator)) if setup.asks_base else setup


def set_aside(config: RunConfig) -> int:
    """Number of questions of the retention suite that are trained on, and so never measured."""
    anchors = config.inner_loop.anchors
    return max(config.rehearsal.examples, anchors.count if anchors.source == "suite" else 0)


def _anchored(config: RunConfig, suite: Sequence[Query], drawn: Sequence[Mapping[str, str]]) -> dict[str, Prompt]:
    anchors = config.inner_loop.anchors
    if anchors.source == "suite":
        return {query.query_id: query.prompt for query in split(suite, anchors.count, config.seed)[0]}
    kwargs = config.evaluation.chat_template_kwargs
    return {record["id"]: templated(Prompt(user=record["prompt"]), kwargs) for record in drawn}


def with_earlier(setup: Setup, contexts: Sequence[Context]) -> Setup:
    """The setup of a trial that also asks the queries of these contexts, which the run learned earlier."""
    earlier = tuple(query for context in contexts for query in setup.queries(context))
    return replace(setup, earlier=earlier, retention_digest=digest_of(*earlier, *setup.retention))


def retention_query(record: Mapping[str, Any]) -> Query:
    """A retention record as a query: the bare question."""
    question = record["question"]
    return Query(
        query_id=record["id"],
        question=question,
        gold=record["answer"],
        other_golds=tuple(record.get("other_answers", ())),
        prompt=Prompt(user=question),
    )


async def base_answers(setup: Setup, generator: Generator) -> BaseAnswers:
    """The base model's answers to the anchors, and to the rehearsed questions if the config asks for them. They are
    sampled greedily; an unavailable generator is waited for. Raises OnlyReasoning if all of them end inside the
    model's reasoning."""
    own_words = setup.rehearsed if setup.config.rehearsal.source == "model" else ()
    greedy = setup.config.evaluation.sampling.changed(temperature=0.0, seed=0)
    asked = {query.query_id: query.prompt for query in own_words}

    async def ask(prompts: Mapping[str, Prompt], sampling: Sampling, limit: str) -> dict[str, str]:
        if not prompts:
            return {}
        wanted = [(name, prompt, [0]) for name, prompt in prompts.items()]
        said = {one.context_id: one async for one in generator.sample(BASE, wanted, sampling)}
        unsaid = [no_answer(Said(one.text, one.reasoning), limit, _QUESTIONS) for one in said.values()]
        if unsaid and all(unsaid):
            raise OnlyReasoning(f"the base model has no answer of its own to train on: {unsaid[0]}")
        return {name: storable(one.text) for name, one in said.items()}

    async def ask_both() -> BaseAnswers:
        anchors = answering(setup.config.inner_loop.anchors)
        return BaseAnswers(
            rehearsal=await ask(asked, greedy, "evaluation.sampling.max_tokens"),
            anchors=await ask(setup.anchored, anchors, "inner_loop.anchors.max_tokens"),
        )

    return await retry_until_available(ask_both, doing="sampling answers of the base model")


def with_base_answers(setup: Setup, answers: BaseAnswers) -> Setup:
    """The setup with the base model's answers."""
    own_words = setup.config.rehearsal.source == "model"
    return replace(
        setup,
        rehearsal=examples_of(setup.rehearsed, answers.rehearsal) if own_words else setup.rehearsal,
        anchors=anchors_of(setup.anchored, answers.anchors),
        asks_base=False,
    )
