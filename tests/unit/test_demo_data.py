"""The project's own data: invented passages that can be learnt from and graded, and the default retention suite."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sealkit.judges.content import decide
from sealkit.types import Outcome

ROOT = Path(__file__).parents[2]
PASSAGES: list[dict[str, Any]] = json.loads((ROOT / "configs/demo/passages.json").read_text(encoding="utf-8"))
RETENTION: list[dict[str, str]] = [
    json.loads(line) for line in (ROOT / "sealkit/data/retention.jsonl").read_text(encoding="utf-8").splitlines()
]
ARTICLE = re.compile(r"^(?:an?|the) ", re.IGNORECASE)
each_passage = pytest.mark.parametrize("passage", PASSAGES, ids=[passage["title"] for passage in PASSAGES])


def names(text: str) -> set[str]:
    """Capitalised words that do not merely open a sentence or a quotation."""
    return set(re.findall(r'(?<![.!?:"] )(?<!["\n])(?<!^)\b[A-Z]\w+(?:-[A-Z]\w+)?', text)) - {"The"}


def test_there_are_enough_of_both_splits() -> None:
    splits = Counter(passage["split"] for passage in PASSAGES)
    assert set(splits) == {"train", "heldout"}
    assert len(PASSAGES) >= 36
    assert splits["train"] >= 24
    assert splits["heldout"] >= 12


def test_titles_and_questions_are_unique() -> None:
    assert len({passage["title"] for passage in PASSAGES}) == len(PASSAGES)
    questions = [query["question"] for passage in PASSAGES for query in passage["questions"]]
    assert len(set(questions)) == len(questions)


def test_no_two_passages_share_a_name() -> None:
    holders = Counter(
        name for passage in PASSAGES for name in names(passage["context"]) | names("- " + passage["title"])
    )
    calendar = {"Tuesday", "Wednesday", "Thursdays", "Friday", "February", "April", "June", "August", "September"}
    common = {
        "Night",
        "School",
        "Street",
        "Saint",
        "Great",
        "Lake",
        "Mount",
        "Castle",
        "Line",
        "Island",
        "Edge",
        "Tarn",
    }
    assert [name for name, count in holders.items() if count > 1 and name not in calendar | common] == []


@each_passage
def test_a_passage_is_short_and_has_five_questions(passage: dict[str, Any]) -> None:
    assert set(passage) == {"title", "split", "context", "questions"}
    assert 45 <= len(passage["context"].split()) <= 65
    assert len(passage["questions"]) == 5


@each_passage
def test_golds_are_short_in_the_passage_and_not_given_away(passage: dict[str, Any]) -> None:
    for query in passage["questions"]:
        gold, question = query["answer"], query["question"]
        assert gold in passage["context"], query
        assert 1 <= len(gold.split()) <= 4, query
        bare = re.escape(ARTICLE.sub("", gold))
        assert not re.search(rf"\b{bare}\b", question, re.IGNORECASE), query
        assert not re.search(rf"\b{bare}\b", passage["title"], re.IGNORECASE), query


@each_passage
def test_every_question_names_its_subject(passage: dict[str, Any]) -> None:
    subject = ARTICLE.sub("", passage["title"]).lower()
    for query in passage["questions"]:
        assert subject in query["question"].lower(), query
        assert query["question"].endswith("?")


@each_passage
def test_the_judge_tells_golds_from_other_answers(passage: dict[str, Any]) -> None:
    for query in passage["questions"]:
        question, gold = query["question"], query["answer"]
        assert decide(question, gold, gold).outcome is Outcome.CORRECT, query
        assert decide(question, gold, f"It is {gold}.").outcome is Outcome.CORRECT, query
        assert decide(question, gold, "I do not know.").outcome is Outcome.INCORRECT, query
        assert decide(question, gold, question).outcome is Outcome.INCORRECT, query


@each_passage
def test_answers_of_one_passage_cannot_be_mistaken_for_each_other(passage: dict[str, Any]) -> None:
    for query in passage["questions"]:
        others = [other["answer"] for other in passage["questions"] if other is not query]
        for other in others:
            assert decide(query["question"], query["answer"], other).outcome is Outcome.INCORRECT, (query, other)


def test_the_retention_suite_is_large_and_balanced() -> None:
    kinds = Counter(query["kind"] for query in RETENTION)
    assert len(RETENTION) >= 220
    assert set(kinds) == {"general", "arithmetic", "instruction", "completion"}
    assert min(kinds.values()) >= 30


def test_retention_queries_are_unique_short_and_whole() -> None:
    assert len({query["id"] for query in RETENTION}) == len(RETENTION)
    assert len({query["question"].casefold() for query in RETENTION}) == len(RETENTION)
    for query in RETENTION:
        assert set(query) == {"id", "kind", "question", "answer"}
        assert 1 <= len(query["answer"].split()) <= 3, query
        assert query["question"].strip() == query["question"] != ""


@pytest.mark.parametrize("query", RETENTION, ids=[query["id"] for query in RETENTION])
def test_retention_answers_are_graded_right_and_their_absence_wrong(query: dict[str, str]) -> None:
    question, gold = query["question"], query["answer"]
    assert decide(question, gold, f"{gold}.").outcome is Outcome.CORRECT
    assert decide(question, gold, "I am sorry.").outcome is Outcome.INCORRECT


def test_retention_sums_are_right() -> None:
    operations = {"plus": "+", "minus": "-", "times": "*", "divided by": "/"}
    checked = 0
    for query in RETENTION:
        match = re.fullmatch(r"What is (\d+) (plus|minus|times|divided by) (\d+)\?", query["question"])
        if match:
            one, other = int(match[1]), int(match[3])
            results = {"+": one + other, "-": one - other, "*": one * other, "/": one / other}
            assert results[operations[match[2]]] == int(query["answer"]), query
            checked += 1
    assert checked >= 30
