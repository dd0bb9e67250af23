"""What a call to learn or to forget documents sends, and how two versions of an alias differ."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from sealkit.config import RunConfig
from sealkit.names import id_of
from sealkit.reports import Lineage
from sealkit.types import Outcome, Value


def shipped_config() -> dict[str, Any]:
    """The config for learning documents that ships with the package."""
    return tomllib.loads(resources.files("sealkit.data").joinpath("learn.toml").read_text(encoding="utf-8"))


def learn_config(
    alias: str, config: RunConfig | Mapping[str, Any] | None = None, *, forget: Sequence[str] = ()
) -> dict[str, Any]:
    """The config of a run that learns documents on `aliases/{alias}`, or makes it `forget` some, by name or digest.
    `config` replaces the one that ships, `sealkit/data/learn.toml`."""
    if isinstance(config, RunConfig):
        config = config.model_dump(mode="json", exclude_unset=True)
    if config is None:
        config = shipped_config()
    gate, adapt, inner_loop = (dict(config.get(section, {})) for section in ("gate", "adapt", "inner_loop"))
    return {
        **config,
        "task": "adapt",
        "gate": {**gate, "alias": id_of(alias)},
        "adapt": {"commit": "route", **adapt, "forget": list(forget)},
        "inner_loop": {"start_from": "base", **inner_loop},
    }


class ChangedAnswer(Value):
    """A question that two versions answer differently. `document`: the one that it is about; `asked`: whether the first
    version was asked at all. A version that is older than a document was not, so `before` is empty."""

    query_id: str
    document: str
    question: str
    gold: str
    generated: bool
    asked: bool
    before: str = ""
    after: str = ""


class VersionDifference(Value):
    """What the second of two versions answers right and the first does not, and the other way round."""

    first: str
    second: str
    learned: tuple[ChangedAnswer, ...] = ()
    lost: tuple[ChangedAnswer, ...] = ()
    lost_of_suite: tuple[str, ...] = ()
    """Ids of the retention suite's questions that only the second has lost."""
    regained_of_suite: tuple[str, ...] = ()


def difference(first: Lineage, second: Lineage) -> VersionDifference:
    """How two versions differ, verdict by verdict, on the exams of all documents that either knows."""
    about = {
        query.query_id: (document.name, query)
        for lineage in (first, second)
        for document in lineage.documents
        for query in document.queries
    }
    before, after = ({v.query_id: v for v in lineage.version.verdicts} for lineage in (first, second))
    learned: list[ChangedAnswer] = []
    lost: list[ChangedAnswer] = []
    for name, (document, query) in about.items():
        was, now = before.get(name), after.get(name)
        right = [one is not None and one.outcome is Outcome.CORRECT for one in (was, now)]
        if right[0] == right[1]:
            continue
        changed = ChangedAnswer(
            query_id=name, document=document, question=query.question, gold=query.gold, generated=query.generated,
            asked=was is not None, before=was.answer if was else "", after=now.answer if now else "",
        )  # fmt: skip
        (learned if right[1] else lost).append(changed)
    gone = [set(one.version.retention.lost_query_ids) if one.version.retention else set() for one in (first, second)]
    return VersionDifference(
        first=first.version.name,
        second=second.version.name,
        learned=tuple(learned),
        lost=tuple(lost),
        lost_of_suite=tuple(sorted(gone[1] - gone[0])),
        regained_of_suite=tuple(sorted(gone[0] - gone[1])),
    )
