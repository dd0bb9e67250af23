"""The project's own data: invented passages that can be learnt from and graded, and the default retention suite."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sealkit.judges.content import decide
from sealkit.types import Outcome

ROOT = Path(__file__).parents[2]
PASSAGES: list[dict[str, Any]] = json.loads((ROOT / "configs/demo/passages.json").read_text(encoding="utf-8"))
RETENTION: list[dict[str, str]] = [
    json.loads(line) for line in (ROOT / "sealkit/data/retention.jsonl").read_text(encoding="utf-8").splitlines()
]
ARTICLE = re.compile(r"^(?:an?|the) ", re.IGNORECASE)
QUERIES = [(passage, query["question"], query["answer"]) for passage in PASSAGES for query in passage["questions"]]


def names(text: str) -> set[str]:
    """Capitalised words that do not merely open a sentence or a quotation."""
    return set(re.findall(r'(?<![.!?:"] )(?<!["\n])(?<!^)\b[A-Z]\w+(?:-[A-Z]\w+)?', text)) - {"The"}


def misjudged(answers: Iterable[tuple[str, str, str, Outcome]]) -> list[tuple[str, str, str]]:
    """Of (question, gold, answer, what the judge should say): those of which it says something else."""
    return [
        (question, gold, answer)
        for question, gold, answer, expected in answers
        if decide(question, gold, answer).outcome is not expected
    ]


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


def test_a_passage_is_short_and_has_five_questions() -> None:
    faulty = [
        passage["title"]
        for passage in PASSAGES
        if set(passage) != {"title", "split", "context", "questions"}
        or not 45 <= len(passage["context"].split()) <= 65
        or len(passage["questions"]) != 5
    ]
    assert faulty == []


def test_golds_are_short_in_the_passage_and_not_given_away() -> None:
    def faults(passage: dict[str, Any], question: str, gold: str) -> Iterator[str]:
        given_away = re.compile(rf"\b{re.escape(ARTICLE.sub('', gold))}\b", re.IGNORECASE)
        if gold not in passage["context"]:
            yield "not in the passage"
        if not 1 <= len(gold.split()) <= 4:
            yield "not of 1 to 4 words"
        if given_away.search(question) or given_away.search(passage["title"]):
            yield "given away"

    assert [(gold, fault) for p, question, gold in QUERIES for fault in faults(p, question, gold)] == []


def test_every_question_names_its_subject() -> None:
    faulty = [
        question
        for passage, question, _ in QUERIES
        if ARTICLE.sub("", passage["title"]).lower() not in question.lower() or not question.endswith("?")
    ]
    assert faulty == []


def test_the_judge_tells_golds_from_other_answers() -> None:
    right, wrong = Outcome.CORRECT, Outcome.INCORRECT
    answers = [
        (question, gold, answer, expected)
        for _, question, gold in QUERIES
        for answer, expected in ((gold, right), (f"It is {gold}.", right), ("I do not know.", wrong), (question, wrong))
    ]
    assert misjudged(answers) == []


def test_answers_of_one_passage_cannot_be_mistaken_for_each_other() -> None:
    answers = [
        (question, gold, other["answer"], Outcome.INCORRECT)
        for passage, question, gold in QUERIES
        for other in passage["questions"]
        if other["question"] != question
    ]
    assert misjudged(answers) == []


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


def test_retention_answers_are_graded_right_and_their_absence_wrong() -> None:
    answers = [
        (query["question"], query["answer"], answer, expected)
        for query in RETENTION
        for answer, expected in ((f"{query['answer']}.", Outcome.CORRECT), ("I am sorry.", Outcome.INCORRECT))
    ]
    assert misjudged(answers) == []


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
