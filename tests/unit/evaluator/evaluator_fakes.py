"""A backend that answers from a table, and how the tests ask it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

from evaluator_svc.evaluate import Evaluator
from sealkit.backends.base import Generation, OnText
from sealkit.errors import SealError
from sealkit.reasoning import Said
from sealkit.types import (
    AdapterRef,
    Evaluation,
    EvaluationRequest,
    FinishReason,
    ModelInfo,
    Outcome,
    Policy,
    Prompt,
    Query,
    Sampling,
    Usage,
    Verdict,
)

POLICY = AdapterRef(digest="a" * 64)
TRIAL = AdapterRef(digest="b" * 64)
GREEDY = Sampling(temperature=0)
BASE_POLICY = Policy(name="policies/base")
TUNED_POLICY = Policy(name="policies/1", adapter=POLICY)


class FakeBackend:
    """Answers right ("yes") to the users' texts that are known to (policy, trial); keeps count of what was asked."""

    name = "fake"
    batch_variant_rate = 0.0
    occupancy = None
    info = ModelInfo(
        name="fake",
        digest="d" * 64,
        tokenizer_digest="e" * 64,
        context_length=1000,
        dtype="float32",
        device="cpu",
    )

    def __init__(self, knows: dict[tuple[AdapterRef | None, AdapterRef | None], set[str]]) -> None:
        self.knows = knows
        self.asked: Counter[tuple[str, AdapterRef | None, AdapterRef | None]] = Counter()
        self.running = self.most_running = 0
        self.fault: SealError | None = None
        self.held: asyncio.Event | None = None
        """What the end of every text waits for."""
        self.seeds: dict[str, set[int]] = {}
        self.kl: dict[tuple[AdapterRef | None, AdapterRef | None], float] | None = {}
        self.measured: list[tuple[Prompt | str, AdapterRef | None, AdapterRef | None]] = []
        self.routes: dict[tuple[AdapterRef, str], AdapterRef | None] = {}
        """Whose adapter answers a text under a routed policy."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def generate(
        self,
        prompt: Prompt,
        sampling: Sampling,
        *,
        policy: Policy | None = None,
        adapter: AdapterRef | None = None,
        on_text: OnText | None = None,
    ) -> Generation:
        who = (policy.adapter if policy else None, adapter)
        self.asked[prompt.user, *who] += 1
        self.seeds.setdefault(prompt.user, set()).add(sampling.seed)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            for _ in range(6):  # longer than the calls of one evaluation are apart
                await asyncio.sleep(0)
            if self.fault is not None and (adapter is not None or on_text is not None):
                raise self.fault
            text = "yes" if prompt.user in self.knows.get(who, set()) else "no"
            for letter in text if on_text is not None else "":
                assert on_text is not None
                on_text(Said(letter))
                await asyncio.sleep(0)
            if self.held is not None:
                await self.held.wait()
        finally:
            self.running -= 1
        return Generation(text=text, finish_reason=FinishReason.STOP, usage=Usage(completion_tokens=1))

    async def route(self, prompt: Prompt | str, policy: Policy | None) -> Policy | None:
        if policy is None or policy.adapter is None or not isinstance(prompt, Prompt):
            return policy
        adapter = self.routes.get((policy.adapter, prompt.user), policy.adapter)
        return Policy(name="route", adapter=adapter) if adapter else None

    async def divergence(
        self, texts: Sequence[Prompt | str], *, policy: Policy | None = None, adapter: AdapterRef | None = None
    ) -> list[float] | None:
        """`kl` of (policy, trial), twice that on a prompt; None where there is no table."""
        who = (policy.adapter if policy else None, adapter)
        self.measured += [(text, *who) for text in texts]
        if self.kl is None:
            return None
        return [self.kl[who] * (2 if isinstance(text, Prompt) else 1) for text in texts]


def queries(*names: str) -> tuple[Query, ...]:
    return tuple(Query(query_id=f"q/{n}", question=n, gold="yes", prompt=Prompt(user=n)) for n in names)


def request(policy: Policy, adapter: AdapterRef | None, *names: str, **more: Any) -> EvaluationRequest:
    """Greedy and judged by `exact`, unless `more` says otherwise."""
    fields: dict[str, Any] = {"queries": queries(*names), "sampling": GREEDY, "judge": "exact", **more}
    return EvaluationRequest(policy=policy, adapter=adapter, **fields)


async def evaluate(
    evaluator: Evaluator, policy: Policy, adapter: AdapterRef | None, *names: str, **more: Any
) -> Evaluation:
    return await evaluator.evaluate(request(policy, adapter, *names, **more))


def right(verdicts: Sequence[Verdict]) -> list[bool]:
    return [v.outcome is Outcome.CORRECT for v in verdicts]
