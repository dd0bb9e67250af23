"""`seal learn` on a real stack with a random model: what is adopted, refused, replaced, skipped, and who waits."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from controller.accept import default_retention
from sealkit.client import SealClient
from sealkit.judges.exact import normalised
from sealkit.resources import DocumentState
from sealkit.store import AdapterStore
from sealkit.types import Sampling
from tests.integration.stack.learning import CONFIG, GREEDY, INN, LAKE, PLUGIN
from tests.integration.stack.support import RunningStack, command
from tests.unit.documents.made import pdf

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

NOTHING_REFUSED = ("--set", "gate.max_forgetting=1.0")
ONE_ADAPTER = ("--set", "adapt.commit=consolidate")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of `stack.seal`, with a config for it."""
    (tmp_path / "learn.toml").write_text(CONFIG)
    return tmp_path


def learn(stack: RunningStack, alias: str, *words: str) -> tuple[str, list[dict[str, Any]]]:
    """Learns files with the command line; what it printed, and the documents of the run's report."""
    ran = stack.seal("learn", *words, "--alias", alias, "--config", "learn.toml")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout, documents(stack, ran.stdout)


def documents(stack: RunningStack, printed: str) -> list[dict[str, Any]]:
    """The documents of the run whose name a command printed first."""
    report = stack.seal("runs", "report", printed.partition(":")[0], "--json")
    found: list[dict[str, Any]] = json.loads(report.stdout)["documents"]
    return found


def answers(stack: RunningStack, alias: str, questions: Iterable[str], sampling: Sampling = GREEDY) -> dict[str, str]:
    """What an alias, or without a name the base model, answers."""
    with SealClient(stack.address) as client:
        return {
            question: client.answer(alias and f"aliases/{alias}", question, sampling).text for question in questions
        }


def test_a_poisoned_document_is_refused_and_the_alias_answers_as_before(stack: RunningStack, folder: Path) -> None:
    # A random model loses most answers, whatever it is trained on. This document is short and trained on briefly, and
    # the suite asks for answers that are left after it.
    (folder / "lake.txt").write_text(LAKE.partition(" Where")[0])
    briefly = [f"--set=inner_loop.optimisation.{setting}" for setting in ("epochs=6", "learning_rate=3e-3")]
    learn(stack, "tried", "lake.txt", *briefly, *NOTHING_REFUSED, *ONE_ADAPTER)
    asked = [record["question"] for record in default_retention()[::4]]
    base, tried = (answers(stack, alias, asked) for alias in ("", "tried"))
    suite = [question for question in asked if base[question] == tried[question] and normalised(base[question])]
    suite = suite[:12]  # one passage
    assert len(suite) >= 8
    records = [{"id": f"r{i}", "question": one, "answer": base[one]} for i, one in enumerate(suite)]
    (folder / "suite.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    (folder / "poison.txt").write_text("\n".join(suite))
    measured = ("--set", "dataset.retention_path=suite.jsonl")

    printed, (lake,) = learn(stack, "pure", "lake.txt", *briefly, *measured)
    assert lake["state"] == DocumentState.LEARNED, printed
    questions = [*asked, LAKE]
    before = answers(stack, "pure", questions, Sampling(temperature=0.0, max_tokens=16))
    printed, (poison,) = learn(stack, "pure", "poison.txt", *measured)
    assert poison["state"] == DocumentState.NOT_ADOPTED
    assert "forgot" in poison["reason"]
    assert "retention questions" in poison["reason"]
    assert "NOT_ADOPTED" in printed
    assert answers(stack, "pure", questions, Sampling(temperature=0.0, max_tokens=16)) == before
    with SealClient(stack.address) as client:
        assert [change.policy for change in client.get_alias("aliases/pure").history] == [lake["policy"]]

    printed, (poison,) = learn(stack, "wrecked", "poison.txt", *measured, *NOTHING_REFUSED, *ONE_ADAPTER)
    assert poison["state"] == DocumentState.LEARNED, printed
    wrecked = answers(stack, "wrecked", suite)
    assert sum(wrecked[question] == base[question] for question in suite) < len(suite) / 2, "it would have done that"


def test_two_that_learn_on_one_alias_at_once_take_turns(stack: RunningStack, folder: Path) -> None:
    (folder / "lake.txt").write_text(LAKE)
    (folder / "inn.txt").write_text(INN)
    both = [
        subprocess.Popen(
            command("learn", name, "--alias", "shared", "--config", "learn.toml", *NOTHING_REFUSED),
            env=stack.environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for name in ("lake.txt", "inn.txt")
    ]  # fmt: skip
    said = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    with SealClient(stack.address) as client:
        runs = [client.get_run(out.partition(":")[0]) for out, _ in said]
        first, second = sorted(runs, key=lambda run: run.create_time)
        assert first.end_time is not None
        assert second.start_time is not None
        assert first.end_time <= second.start_time
        names = [client.report(run.name).documents[0].name for run in (first, second)]
        assert [one.name for one in client.get_lineage("aliases/shared").documents] == names
        history = [change.policy for change in client.get_alias("aliases/shared").history]
        assert history == [client.report(run.name).documents[0].policy for run in (second, first)]


def test_a_changed_document_replaces_its_old_version_and_can_be_forgotten(stack: RunningStack, folder: Path) -> None:
    def lineage() -> Sequence[tuple[str, str, tuple[str, ...]]]:
        with SealClient(stack.address) as client:
            found = client.get_lineage("aliases/changing").documents
        return [(one.name, one.digest, tuple(query.question for query in one.queries)) for one in found]

    old, new = LAKE, LAKE.replace("Ombrel", "Tavik")
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in (old, new)]
    (folder / "lake.txt").write_text(old)
    (folder / "inn.txt").write_text(INN)
    learn(stack, "changing", "lake.txt", "inn.txt", *NOTHING_REFUSED)
    (folder / "lake.txt").write_text(new)
    printed, (lake, inn) = learn(stack, "changing", "lake.txt", "inn.txt", *NOTHING_REFUSED)
    assert (lake["state"], lake["digest"], lake["replaces"]) == (DocumentState.LEARNED, *reversed(digests)), printed
    assert (inn["state"], inn["reason"]) == (
        DocumentState.SKIPPED, "DUPLICATE_DOCUMENT: the alias knows it already",
    )  # fmt: skip
    assert "instead of its older version" in " ".join(printed.split())
    inn_now, lake_now = lineage()
    assert (inn_now[0], lake_now[:2]) == ("inn.txt", ("lake.txt", digests[1]))
    assert "How deep is Lake Tavik?" in lake_now[2]
    assert not any("Ombrel" in question for question in (*inn_now[2], *lake_now[2]))

    forgotten = stack.seal("alias", "forget", "changing", "lake.txt", "--config", "learn.toml", *NOTHING_REFUSED)
    assert forgotten.returncode == 0, forgotten.stdout + forgotten.stderr
    assert [(one["name"], one["state"]) for one in documents(stack, forgotten.stdout)] == [
        ("lake.txt", DocumentState.FORGOTTEN),
    ]  # fmt: skip
    assert [one[0] for one in lineage()] == ["inn.txt"]


def test_an_adapter_that_the_store_lost_is_trained_again(stack: RunningStack, folder: Path) -> None:
    (folder / "inn.txt").write_text(INN)
    (folder / "anchors.jsonl").write_text('{"id": "a", "prompt": "Say a."}\n{"id": "b", "prompt": "Say b."}\n')
    anchored = ("--set", "inner_loop.anchors.source=file", "--set", "dataset.anchors_path=anchors.jsonl")
    learn(stack, "lost", "inn.txt", *anchored, *NOTHING_REFUSED)
    with SealClient(stack.address) as client:
        version = client.get_alias("aliases/lost").policy
        (document,) = client.get_lineage("aliases/lost").documents
    (trial,) = document.trials
    assert trial.adapter is not None
    store = AdapterStore(stack.layout.store.as_uri())
    spec = store.manifest(trial.adapter.digest)["spec_digest"]
    store.delete(trial.adapter.digest)

    _, (inn,) = learn(stack, "lost", "inn.txt", *NOTHING_REFUSED)
    assert inn["state"] == DocumentState.SKIPPED
    assert store.manifest(trial.adapter.digest)["spec_digest"] == spec
    with SealClient(stack.address) as client:
        assert client.get_alias("aliases/lost").policy == version

    other = stack.seal("learn", "inn.txt", "--alias", "lost")  # with the domain `knowledge`
    assert (other.returncode, "Traceback" in other.stderr) == (1, False), other.stderr
    assert f"knows documents of the domain {PLUGIN}" in " ".join(other.stderr.split())


def test_what_is_no_document_is_named_and_the_others_are_learned(stack: RunningStack, folder: Path) -> None:
    bad = {
        "empty.txt": (b"", "EMPTY_DOCUMENT: is empty"),
        "blank.md": (b" \n\n", "EMPTY_DOCUMENT: is empty"),
        "scan.pdf": (pdf([], []), "DOCUMENT_WITHOUT_TEXT: "),
        "locked.pdf": (pdf(["Secret."], password="open"), "ENCRYPTED_DOCUMENT: needs a password"),
        "cut.pdf": (pdf(["Text."])[:90], "INVALID_DOCUMENT: is a damaged PDF"),
        "raw.txt": (bytes(range(256)) * 9, "INVALID_DOCUMENT: is not a text"),
        "photo.png": (b"\x89PNG\r\n\x1a\n\x00\x00", "INVALID_DOCUMENT: "),
    }
    (folder / "mixed").mkdir()
    for name, (content, _) in bad.items():
        (folder / "mixed" / name).write_bytes(content)
    (folder / "mixed" / "windows.txt").write_bytes(f"{INN} Was it called La Niña?".encode("cp1252"))
    (folder / "mixed" / "lake.pdf").write_bytes(pdf(LAKE.replace("? ", "?\n").splitlines()))

    printed, found = learn(stack, "mixed", "mixed", *NOTHING_REFUSED)
    shown = " ".join(printed.split())
    by_name = {one["name"].removeprefix("mixed/"): one for one in found}
    wrong = [
        (name, by_name[name]["state"], by_name[name]["reason"])
        for name, (_, reason) in bad.items()
        if by_name[name]["state"] != DocumentState.SKIPPED or not by_name[name]["reason"].startswith(reason)
        or f"mixed/{name}: {by_name[name]['reason']}" not in shown
    ]  # fmt: skip
    assert wrong == []
    learned = {name for name, one in by_name.items() if one["state"] == DocumentState.LEARNED}
    assert learned == by_name.keys() - bad.keys() == {"windows.txt", "lake.pdf"}, printed
    assert "cp1252" in " ".join(by_name["windows.txt"]["notices"])

    only_bad, (empty,) = learn(stack, "nothing", "mixed/empty.txt")
    assert empty["state"] == DocumentState.SKIPPED
    assert "EMPTY_DOCUMENT: is empty" in only_bad
    missing = stack.seal("learn", "gone.pdf", "--alias", "nothing", "--config", "learn.toml")
    assert (missing.returncode, "gone.pdf" in missing.stderr, "Traceback" in missing.stderr) == (2, True, False)
    unknown = stack.seal("alias", "show", "nothing")
    assert (unknown.returncode, "nothing" in unknown.stderr) == (2, True), "nobody was learned, so it does not exist"
