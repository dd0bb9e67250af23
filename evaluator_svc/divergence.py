"""How far a model has moved from its base: KL(base || subject) on the queries' prompts and on a fixed text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from statistics import fmean

from evaluator_svc.queries import BASE, Subject
from sealkit.backends.base import Backend
from sealkit.concurrency import SingleFlightCache, gather_or_cancel
from sealkit.observability.metrics import CACHE_LOOKUPS, KL_TO_BASE
from sealkit.types import Divergence, Policy, Prompt, Query, digest_of

_SPECIAL = 8
"""Tokens reserved for the special tokens that a tokenizer puts before a text."""


class Divergences:
    """Measures KL on one backend. Values of policies are in an LRU cache of `limit` entries; those of trials are not
    cached, because they are not needed again."""

    def __init__(self, backend: Backend, limit: int) -> None:
        self._backend = backend
        self._kept: SingleFlightCache[str, float | None] = SingleFlightCache(limit)

    async def measure(self, subject: Subject, queries: Sequence[Query]) -> Divergence | None:
        """None if the backend cannot measure it. Raises the backend's errors."""
        most = self._backend.info.context_length - _SPECIAL  # a text never has more tokens than bytes
        texts = [text[:most] for text in fixed_text()]
        prompts = [query.prompt for query in queries]
        on_text, on_queries = await gather_or_cancel(self._mean(subject, texts), self._mean(subject, prompts))
        if on_text is None:
            return None
        KL_TO_BASE.labels("fixed_text").observe(on_text)
        if on_queries is not None:
            KL_TO_BASE.labels("queries").observe(on_queries)
        return Divergence(on_queries=on_queries, on_fixed_text=on_text)

    async def _mean(self, subject: Subject, texts: Sequence[Prompt | str]) -> float | None:
        """Nats a token, averaged over texts with equal weights; None without texts."""
        if not texts:
            return None
        if subject == BASE:
            return 0.0
        if subject.trial is not None:
            return await self._ask(subject, texts)
        assert subject.policy is not None
        value, fresh = await self._kept.get(
            digest_of(self._backend.info.digest, subject.policy.digest, *texts), lambda: self._ask(subject, texts)
        )
        CACHE_LOOKUPS.labels("divergence", "miss" if fresh else "hit").inc()
        return value

    async def _ask(self, subject: Subject, texts: Sequence[Prompt | str]) -> float | None:
        policy = Policy(name="subject", adapter=subject.policy)
        found = await self._backend.divergence(texts, policy=policy, adapter=subject.trial)
        return fmean(found) if found is not None else None


@cache
def fixed_text() -> tuple[str, ...]:
    """The paragraphs of the fixed text, the same for every model of every run."""
    text = resources.files("sealkit.data").joinpath("fixed_text.txt").read_text(encoding="utf-8")
    return tuple(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
