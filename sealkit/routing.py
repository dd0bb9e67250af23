"""Which of many adapters answers a prompt: the one of the passage that the prompt is about, or none.

A *routed* adapter has no weights; it is a list of routes: adapters, each with the passage that it was trained on. It is
in the adapter store under a digest, so a policy has one like any other adapter. Whoever decodes with it chooses an
adapter for each prompt, so what does not concern any passage is answered by the bare base model (ADR 15).

Passages are found by their words, as in BM25 (Robertson and Zaragoza 2009), with weights from everyday text, so that
few passages are enough to tell rare words from common ones.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from pydantic import Field

from sealkit import limits
from sealkit.errors import AdapterCorrupt, AdapterMismatch
from sealkit.types import AdapterRef, Prompt, Value, digest_of
from sealkit.words.rarity import rarities

ROUTES_FILE = "routes.json"
_LEAST_SHARE = 0.4
"""Of the weight of a text, in the passage that it is about."""
_LEAST_WEIGHT = 6.0
"""Of the words that both have: one very rare word, or two less common ones. Measured: docs/results/routing.md."""


class Route(Value):
    """An adapter, and the passage whose prompts it answers."""

    adapter: AdapterRef
    text: str = Field(min_length=1, max_length=limits.TEXT_CHARACTERS)


def dump_routes(routes: Sequence[Route]) -> dict[str, bytes]:
    """The files of a routed adapter, by name. Equal routes give equal bytes."""
    listed = [route.model_dump(mode="json") for route in routes]
    return {ROUTES_FILE: json.dumps({"routes": listed}, ensure_ascii=False, indent=1, sort_keys=True).encode()}


def routed_digest(base_model: str, routes: Sequence[Route]) -> str:
    """The digest of the routed adapter of these routes on the base model with this digest."""
    return digest_of("routed", base_model, *routes)


def load_routes(files: Mapping[str, bytes]) -> list[Route]:
    """The routes in an adapter's files. Raises AdapterCorrupt if they are not a routed adapter's."""
    try:
        return [Route.from_stored(one) for one in json.loads(files[ROUTES_FILE])["routes"]]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise AdapterCorrupt(f"{ROUTES_FILE} is not a list of routes: {error}") from error


def refuse_routed(files: Mapping[str, bytes]) -> None:
    """Raises AdapterMismatch on a routed adapter, where weights are needed."""
    if ROUTES_FILE in files:
        raise AdapterMismatch(
            "the adapter is a list of routes to other adapters, so it has no weights to train on, join or merge; train "
            'on the bare base model (inner_loop.start_from = "base"), or take a version of a run with adapt.commit = '
            '"consolidate"'
        )


class PassageIndex:
    """Finds the passages that a text is about."""

    def __init__(self, passages: Sequence[str]) -> None:
        self._passages = [frozenset(rarities(passage)) for passage in passages]
        self._with = Counter(word for words in self._passages for word in words)

    def shares(self, text: str) -> list[float]:
        """For each passage the share of the text's weight that is in its words, in [0, 1]; 0 if that is too little for
        the text to be about it."""
        weights = self._weights(text)
        total = sum(weights.values())
        common = [sum(weight for word, weight in weights.items() if word in words) for words in self._passages]
        return [one / total if one >= _LEAST_WEIGHT and one >= _LEAST_SHARE * total else 0.0 for one in common]

    def has_enough_words(self, text: str) -> bool:
        """Whether the text has words enough to be about a passage. "When was it opened?" has not."""
        return sum(self._weights(text).values()) >= _LEAST_WEIGHT

    def _weights(self, text: str) -> dict[str, float]:
        """Words of the text, sorted, with their rarity; less for words of many passages, and 1 / log2(1 + n) of it for
        words of all n."""
        count = max(1, len(self._passages))
        found = rarities(text)
        return {
            word: found[word] * math.log1p(count / max(1, self._with[word])) / math.log1p(count)
            for word in sorted(found)
        }


class Router:
    """Chooses a route for each prompt."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = routes
        self._index = PassageIndex([route.text for route in routes])

    def choose(self, prompt: Prompt | str) -> AdapterRef | None:
        """The adapter of the passage that the prompt's request is about, the first on ties; None: the bare base model.
        A request that says too little of its own is about what the turns before it are about."""
        for text in _newest_first(prompt):
            shares = self._index.shares(text)
            best = max(range(len(shares)), key=lambda i: shares[i], default=-1)
            if best >= 0 and shares[best]:
                return self._routes[best].adapter
            if self._index.has_enough_words(text):
                return None
        return None


def _newest_first(prompt: Prompt | str) -> Iterator[str]:
    if isinstance(prompt, str):
        yield prompt
        return
    yield prompt.user
    for shot in reversed(prompt.shots):
        yield f"{shot.user}\n{shot.assistant}"
