"""Whether a run can be accepted: its config, dataset and retention suite, checked before anything is written."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from controller.db.documents import NewDocument
from controller.db.runs import NewRun
from controller.rules.anchors import bundled_anchors, draw
from controller.rules.arms import check_arms, planned_trials, ready_arms
from controller.rules.seeds import shuffled
from controller.rules.setup import domain_of, set_aside
from sealkit import limits
from sealkit.config import RunConfig, parse_config
from sealkit.domains.base import Context, Domain, Examines, Studies
from sealkit.errors import InvalidConfig, InvalidDataset, LimitExceeded
from sealkit.golds import golds_of
from sealkit.judges import check_judge
from sealkit.names import check_name
from sealkit.resources import Editor
from sealkit.schema import read_schema
from sealkit.types import digest_of

_SPLITS = ("train", "heldout")
_SLUG_LENGTH = 40
_NOTHING_TO_LEARN = (
    "no record is in the train split, so there is nothing to learn from; add records, or hold out fewer than there are "
    "(dataset.held_out)"
)
_CHARACTERS = {
    "id": limits.QUERY_ID_CHARACTERS,
    "question": limits.RETENTION_CHARACTERS,
    "answer": limits.RETENTION_CHARACTERS,
    "prompt": limits.RETENTION_CHARACTERS,
}
"""Most characters of each text of a retention record or an anchor."""


def accept(
    *,
    request_id: str,
    display_name: str,
    config: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    retention: Sequence[Mapping[str, Any]],
    anchors: Sequence[Mapping[str, Any]] = (),
    documents: Sequence[NewDocument] = (),
    plugins: Sequence[str],
    outside: Sequence[str] = (),
    tenant: str = "",
) -> tuple[NewRun, list[Context]]:
    """The run to insert, and its contexts. Request ids are unique per `tenant`.

    Raises InvalidConfig, InvalidDataset with every fault named; UnknownDomain; UnknownJudge.
    """
    checked = check_config(parse_config(config))
    domain = domain_of(checked, plugins)
    check_judge(checked.evaluation.judge or domain.judge)
    learns = bool(documents or checked.adapt.forget)
    if learns:
        check_documents(checked, domain, documents, records, outside)
    check_domain(checked, domain)
    used = records[: checked.dataset.limit or None]
    contexts = [] if learns else check_contexts(hold_out(domain.contexts(used), checked.dataset.held_out, checked.seed))
    ready = ready_arms(domain, contexts)
    check_arms(checked, domain, ready, outside)
    suite = check_retention(retention) if retention else default_retention()
    check_set_aside(checked, len(suite))
    check_comparison(checked, sum(context.split == "heldout" for context in contexts))
    splits = Counter(context.split for context in contexts)
    planned = planned_trials(checked, train=splits["train"], held_out=splits["heldout"], ready=ready)
    check_trials(planned.total)
    name = display_name or checked.name
    new = NewRun(
        run_id=run_id(name, request_id, tenant),
        digest=digest_of(display_name, checked, list(records), list(retention), list(anchors), *_digests(documents)),
        display_name=name,
        config=checked,
        retention=tuple(suite),
        anchors=tuple(draw_anchors(checked, anchors)),
        alias=checked.gate.alias if learns else "",
        documents=tuple(documents),
        rounds_total=_rounds(checked, splits["train"], len(documents)),
        planned=planned,
    )
    return new, contexts


def _rounds(config: RunConfig, train: int, documents: int) -> int:
    """Rounds of a run; with documents at most so many."""
    if config.task != "adapt":
        return config.rounds
    return train + documents + bool(config.adapt.forget)


def _digests(documents: Sequence[NewDocument]) -> list[list[str]]:
    """Names and digests; none without documents, so that the digest of such a run is that of older versions."""
    return [[document.name, document.digest] for document in documents]


def check_documents(
    config: RunConfig,
    domain: Domain,
    documents: Sequence[NewDocument],
    records: Sequence[Mapping[str, Any]],
    outside: Sequence[str],
) -> None:
    """Checks a run that learns documents on an alias, or makes it forget some. Raises InvalidConfig, InvalidDataset."""
    if config.task != "adapt":
        raise _invalid("task", 'documents are learned with task = "adapt"')
    if not config.gate.alias:
        raise _invalid("gate.alias", "documents are learned on an alias, and forgotten by one; name it")
    if config.start_policy:
        raise _invalid(
            "start_policy", "documents are learned from the version that the alias points to; leave it empty"
        )
    if config.adapt.commit == "join":
        raise _invalid("adapt.commit", 'documents are learned with adapt.commit = "route" or "consolidate"')
    if config.inner_loop.start_from != "base":
        raise _invalid(
            "inner_loop.start_from",
            "documents are learned on the bare base model, or the next version would still contain a document that it "
            'replaces or forgets; set it to "base"',
        )
    if not isinstance(domain, Examines):
        raise _invalid("domain.name", f"the domain {domain.name} does not learn documents; knowledge does")
    if config.exam.editor != Editor.BASE and config.exam.editor not in outside:
        known = ", ".join((Editor.BASE, *outside))
        raise _invalid("exam.editor", f"unknown editor {config.exam.editor!r}; use one of {known}")
    faults = [("records", "give records or documents, not both")] if records else []
    for i, one in enumerate(documents):
        if fault := "is blank" if not one.name.strip() else _name_fault(one.name):
            faults.append((f"documents[{i}].name", fault))
    twice = [name for name, n in Counter(document.name for document in documents).items() if n > 1]
    faults += [("documents", f"the name {name!r} comes more than once") for name in twice]
    _raise_if(faults)


def check_config(config: RunConfig) -> RunConfig:
    """Checks settings of different sections against each other. Raises InvalidConfig."""
    for sampling in (config.editor.sampling, config.evaluation.sampling, config.inner_loop.teaching):
        if sampling.json_schema:
            read_schema(sampling.json_schema)
    if config.selection.must_beat_passage_only and not config.passage_only:
        raise _invalid(
            "selection.must_beat_passage_only", "needs passage_only = true; without the comparison, set it to false"
        )
    if config.task == "adapt":
        _check_commit(config)
    return config


def _check_commit(config: RunConfig) -> None:
    commit, below = config.adapt.commit, config.inner_loop.start_from
    if commit == "join" and below == "base":
        raise _invalid(
            "adapt.commit",
            'joins an adapter to the policy that it was trained on, but inner_loop.start_from = "base" trains each on '
            'the bare base model; set adapt.commit = "route" or "consolidate", or start_from = "policy"',
        )
    if commit == "route" and below != "base":
        raise _invalid(
            "inner_loop.start_from",
            'adapt.commit = "route" answers with each adapter alone, so it has to be trained on the bare base model; '
            'set it to "base"',
        )


def check_domain(config: RunConfig, domain: Domain) -> None:
    """Checks that the domain has what the run needs of it. Raises InvalidConfig."""
    if config.inner_loop.objective == "distil" and not isinstance(domain, Studies):
        raise _invalid("inner_loop.objective", f'the domain {domain.name} has no teacher; set it to "sft"')
    if config.task == "adapt" and config.adapt.commit == "route" and not isinstance(domain, Examines):
        raise _invalid("adapt.commit", f"routes by passages, and the domain {domain.name} has none; choose another one")


def check_trials(planned: int) -> None:
    """Refuses a run of more than `limits.TRIALS` trials. Raises LimitExceeded."""
    if planned > limits.TRIALS:
        raise LimitExceeded(
            f"config: a run of {planned} trials, but at most {limits.TRIALS} are allowed; use fewer rounds, "
            "contexts_per_round or editor.k",
            metadata={"limit": "trials", "allowed": str(limits.TRIALS), "asked": str(planned)},
        )


def check_set_aside(config: RunConfig, suite: int) -> None:
    """Checks that training leaves some of the `suite` queries to measure. Raises InvalidConfig."""
    if set_aside(config) >= suite:
        largest = "inner_loop.anchors.count" if set_aside(config) > config.rehearsal.examples else "rehearsal.examples"
        raise _invalid(
            largest, f"trains on {set_aside(config)} of {suite} retention queries, so none is left to measure"
        )


def check_comparison(config: RunConfig, held_out: int) -> None:
    """Checks that policies are scored on held-out contexts, if the gate compares them. Raises InvalidConfig."""
    if config.gate.held_out == "off":
        return
    lacking = {
        "an adaptation scores no policy on held-out contexts": config.task == "adapt",
        "the dataset has no held-out context; set dataset.held_out": not held_out,
        "held_out.samples is 0, so no policy is scored": not config.held_out.samples,
        "the policy is not one of editor.arms": Editor.POLICY not in config.editor.arms,
    }
    for fault, found in lacking.items():
        if found:
            raise _invalid("gate.held_out", f'"{config.gate.held_out}" compares policies, but {fault}')


def draw_anchors(config: RunConfig, records: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The run's anchors, {id, prompt}: drawn from the project's own or from `records`, as the config says; empty if
    they are questions of the suite, or if there are none. Raises InvalidConfig if records are missing, or given but not
    used; InvalidDataset."""
    wanted = config.inner_loop.anchors
    if wanted.source == "file" and not records:
        raise _invalid("inner_loop.anchors.source", "file: needs anchors with the run; set dataset.anchors_path")
    if records and wanted.source != "file":
        raise _invalid("inner_loop.anchors.source", f'anchors come with the run; set it to "file", not {wanted.source}')
    known = bundled_anchors() if wanted.source == "bundled" else list(records)
    return draw(check_texts("anchors", known, ("id", "prompt")), wanted.count, config.seed)


def hold_out(contexts: Sequence[Context], count: int, seed: int) -> list[Context]:
    """The contexts that a run uses. With a `count`, at most that many are held out: a seeded sample of those that are
    marked so or, if none is, of all."""
    if not count:
        return list(contexts)
    marked = [context for context in contexts if context.split == "heldout"]
    chosen = {context.context_id for context in shuffled(marked or contexts, seed)[:count]}
    return [
        context.changed(split="heldout") if context.context_id in chosen else context
        for context in contexts
        if context.split != "heldout" or context.context_id in chosen
    ]


def check_contexts(contexts: Sequence[Context]) -> list[Context]:
    """Contexts with unique ids, in known splits, at least one of them in `train`. Raises InvalidDataset."""
    faults = [
        (f"records[{i}].split", f"{c.split!r} is not train or heldout")
        for i, c in enumerate(contexts)
        if c.split not in _SPLITS
    ]
    for i, context in enumerate(contexts):
        if fault := _name_fault(context.context_id):
            faults.append((f"records[{i}]", f"context id {fault}"))
    twice = [name for name, n in Counter(context.context_id for context in contexts).items() if n > 1]
    faults += [("records", f"context id {name!r} comes more than once") for name in twice]
    if not any(context.split == "train" for context in contexts):
        faults.append(("records", _NOTHING_TO_LEARN))
    _raise_if(faults)
    return list(contexts)


def _name_fault(name: str) -> str:
    try:
        check_name(name)
    except ValueError as error:
        return str(error)
    return ""


def check_retention(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Retention records: a unique `id`, `question` and `answer`, and `other_answers` if there are several gold answers
    (see `golds_of`). Raises InvalidDataset."""
    golds = [_golds(record) for record in records]
    faults = [
        (
            f"retention[{i}].answer",
            f"more than {limits.OTHER_GOLDS + 1} answers, or one longer than {_CHARACTERS['answer']}",
        )
        for i, found in enumerate(golds)
        if len(found) > limits.OTHER_GOLDS + 1 or max(map(len, found), default=0) > _CHARACTERS["answer"]
    ]
    _raise_if(faults)
    firsts = [{**record, "answer": found[0] if found else ""} for record, found in zip(records, golds, strict=True)]
    checked = check_texts("retention", firsts, ("id", "question", "answer"))
    return [
        {**texts, "other_answers": list(found[1:])} if found[1:] else {**texts}
        for texts, found in zip(checked, golds, strict=True)
    ]


def _golds(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The gold answers of a record; none if they are in no known form."""
    try:
        return golds_of(record)
    except ValueError:
        return ()


def check_texts(what: str, records: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[dict[str, str]]:
    """Records with these texts, none of them empty, and unique ids; other keys are dropped. Raises InvalidDataset."""
    faults = [
        (f"{what}[{i}].{key}", "missing, empty or not text")
        for i, record in enumerate(records)
        for key in keys
        if not isinstance(record.get(key), str) or not record[key].strip()
    ]
    faults += [
        (f"{what}[{i}].{key}", f"longer than {_CHARACTERS[key]} characters")
        for i, record in enumerate(records)
        for key in keys
        if isinstance(record.get(key), str) and len(record[key]) > _CHARACTERS[key]
    ]
    if len(records) > limits.QUERIES:
        faults.append((what, f"has {len(records)} records; at most {limits.QUERIES} are allowed"))
    twice = [name for name, n in Counter(str(record.get("id")) for record in records).items() if n > 1]
    faults += [(what, f"id {name!r} comes more than once") for name in twice]
    _raise_if(faults)
    return [{key: record[key] for key in keys} for record in records]


def default_retention() -> list[dict[str, Any]]:
    """The project's own suite."""
    text = resources.files("sealkit.data").joinpath("retention.jsonl").read_text(encoding="utf-8")
    return check_retention([json.loads(line) for line in text.splitlines() if line.strip()])


def run_id(name: str, request_id: str, tenant: str = "") -> str:
    """A short id: the name's letters and digits, then eight hex digits of the request id's digest; for a tenant twelve,
    of the digest of tenant and request id, so that two tenants never get the same id."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_SLUG_LENGTH].rstrip("-") or "run"
    return f"{slug}-{digest_of(tenant, request_id)[:12] if tenant else digest_of(request_id)[:8]}"


def _invalid(field: str, message: str) -> InvalidConfig:
    return InvalidConfig(f"config: {field}: {message}", fields=((f"config.{field}", message),))


def _raise_if(faults: Sequence[tuple[str, str]]) -> None:
    if faults:
        listed = "; ".join(f"{path}: {message}" for path, message in faults)
        raise InvalidDataset(f"dataset: {listed}", fields=tuple(faults))
