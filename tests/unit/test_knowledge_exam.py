"""Which questions are fit for a generated exam, and what is the same fact."""

from __future__ import annotations

import pytest

from sealkit.config import InnerLoopConfig
from sealkit.domains.base import Examines, Rejected, Study, StudyItem
from sealkit.domains.knowledge import KnowledgeDomain
from sealkit.domains.knowledge.exam import fault_of_item, overlap
from sealkit.types import Prompt

TITLE = "The Veldermoor lighthouse"
TEXT = "The Veldermoor lighthouse was built in 1847 by the engineer Ana Tressik. Its lamp burns whale oil."


def domain() -> KnowledgeDomain:
    return KnowledgeDomain({"style": "questions", "passage_beside": False}, InnerLoopConfig(objective="distil"))


def test_a_question_needs_a_short_answer_that_is_in_the_text_and_not_in_the_question() -> None:
    faults = {
        ("Who built the lighthouse?", "Ana Tressik"): "",
        ("When was it built?", "in 1847"): "",
        ("Who built the lighthouse?", "I don't know"): "it has no answer",
        ("Who built the lighthouse?", "Jon Abel"): "its answer is not in the text",
        ("What burns whale oil?", "whale oil"): "it contains its answer",
        ("Which lighthouse is it?", "Veldermoor"): "it contains its answer",
        ("What is it?", "the"): "its answer has no content",
        ("What is told?", f"{TEXT} {TEXT}"): "its answer is too long to be graded",
    }
    wrong = {item: found for item, fault in faults.items() if (found := fault_of_item(TITLE, TEXT, *item)) != fault}
    assert wrong == {}


def test_facts_are_compared_by_content_words_whatever_the_wording() -> None:
    asked = ("Who built the lighthouse?", "Ana Tressik")
    assert overlap(TITLE, asked, ("What is the name of the engineer that built Veldermoor?", "Ana Tressik")) > 0.5
    assert overlap(TITLE, asked, ("When was the Veldermoor lighthouse built?", "1847")) <= 0.5
    assert overlap(TITLE, asked, ("What does the lamp burn?", "whale oil")) == 0
    assert overlap(TITLE, ("What?", "it"), asked) == 0


def test_a_study_without_the_exam_s_facts_is_left_and_one_of_nothing_else_is_rejected() -> None:
    plugin = domain()
    assert isinstance(plugin, Examines)
    context = plugin.with_exam(plugin.of_passage(TITLE, (), TEXT), [("Who built the lighthouse?", "Ana Tressik")], 0.5)
    (query,) = plugin.queries(context)
    assert (query.question, query.gold, context.generated) == ("Who built the lighthouse?", "Ana Tressik", True)
    asked = ("Which engineer built it?", "What does the lamp burn?")
    items = [
        StudyItem(prompt=Prompt(user=f"Topic: {TITLE}\n{q}"), teacher_prompt=Prompt(user=f"{TEXT} {q}")) for q in asked
    ]
    spec = plugin.teach(context, Study(items=tuple(items)), ("Ana Tressik", "whale oil"), 0)
    assert [example.text for example in spec.examples] == ["whale oil"]
    with pytest.raises(Rejected, match="ONLY_THE_EXAM"):
        plugin.teach(context, Study(items=tuple(items[:1])), ("Ana Tressik",), 0)


def test_the_name_of_a_passage_says_nothing_of_its_text() -> None:
    context = domain().of_passage("Secret plans", ("Of the lighthouse",), TEXT)
    assert context.payload["title"] == "Secret plans: Of the lighthouse"
    assert not any(word in context.context_id.lower() for word in ("secret", "plan", "light"))
    assert domain().queries(context) == []


def test_questions_of_several_lists_are_each_asked_once_and_a_cut_one_is_left_out() -> None:
    plugin = domain()
    lists = ["1. Who built it?\n2. When was it bu", "1. WHO built it\n2. What burns?", "none here"]
    items = plugin.exam_items(plugin.of_passage(TITLE, (), TEXT), lists)
    assert [item.question for item in items] == ["Who built it?", "What burns?"]
    for item in items:
        assert TEXT not in item.prompt.user
        assert TEXT in item.open_book.user
