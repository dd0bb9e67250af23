"""What is left out of a passage to ask for it."""

from __future__ import annotations

from sealkit.config import InnerLoopConfig
from sealkit.domains.knowledge import KnowledgeDomain
from sealkit.domains.knowledge.blanks import blanks_of
from sealkit.domains.knowledge.exam import fault_of_item

TITLE = "The Marrow Lock"
TEXT = (
    "The Marrow Lock joins the river Sill to the harbour of Ostrand. The engineer Bela Rushworth built it in 1911 out "
    "of grey granite; it keeps nine hundred yellow oars. When a ship comes in, the lock keeper blows a brass horn. "
    "They sang a song, and the old keeper told a story about whales."
)
ASKED = "Fill in the blank: "


def test_numbers_and_names_are_left_out_first_and_then_phrases_each_whole() -> None:
    answers = [blank.answer for blank in blanks_of(TITLE, TEXT)]
    assert answers == [
        "Sill", "Ostrand", "Bela Rushworth", "1911", "nine hundred", "harbour", "grey granite", "ship comes",
        "brass horn", "song", "story", "whales",
    ]  # fmt: skip


def test_a_blank_is_in_its_clause_or_if_that_says_too_little_in_its_sentence() -> None:
    questions = {blank.answer: blank.question for blank in blanks_of(TITLE, TEXT)}
    assert questions["1911"] == f"{ASKED}The engineer Bela Rushworth built it in ___ out of grey granite"
    assert questions["song"] == f"{ASKED}They sang a ___, and the old keeper told a story about whales."


def test_a_blank_is_fit_for_an_exam_and_has_its_answer_once() -> None:
    faults = {b.answer: fault_of_item(TITLE, TEXT, b.question, b.answer) for b in blanks_of(TITLE, TEXT)}
    assert set(faults.values()) == {""}
    twice = blanks_of("The river Sill", "The small river Sill is joined by Sill water from the harbour.")
    assert [blank.answer for blank in twice] == ["harbour"]


def test_other_languages_have_blanks_for_figures_and_names() -> None:
    german = blanks_of("Schleuse", "Die alte Schleuse wurde von Bela Rusch im Jahr 1911 aus hellem Granit gebaut.")
    assert [blank.answer for blank in german] == ["Bela Rusch", "Jahr", "1911", "Granit"]
    assert blanks_of("", "") == []


def test_the_exam_asks_blanks_with_their_answers_in_one_line_and_without_the_text() -> None:
    domain = KnowledgeDomain({"style": "questions"}, InnerLoopConfig(objective="distil"))
    items = domain.exam_blanks(domain.of_passage(TITLE, (), TEXT))
    assert [item.answer for item in items][:2] == ["Sill", "Ostrand"]
    for item in items:
        assert item.prompt.user == f"Topic: {TITLE}\n{item.question}"
        assert TEXT in item.open_book.user
