"""Quoted answers: the sentence of the passage that a question is about, as what is trained on."""

from __future__ import annotations

from typing import Any

import pytest

from sealkit.config import InnerLoopConfig
from sealkit.domains.base import Context, Rejected, spec_of, study_of
from sealkit.domains.knowledge import KnowledgeDomain
from sealkit.domains.knowledge.quoting import quoted_answers

TITLE = "The Marrow Lock"
BUILT = "The Marrow Lock was built in 1911 out of grey granite."
DREW = "Bela Rushworth, the engineer, drew its gates."
WEIGHS = "Each weighs 40 tonnes!"
TEXT = f"{BUILT} {DREW}\n{WEIGHS}"


def domain_of(**options: Any) -> KnowledgeDomain:
    return KnowledgeDomain({"style": "questions", "answers": "quoted", **options}, InnerLoopConfig())


def context_of(domain: KnowledgeDomain) -> Context:
    record = {"title": TITLE, "context": TEXT, "questions": [{"question": "Who drew it?", "answer": "Bela"}]}
    return domain.contexts([record])[0]


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        ("Who is the engineer that drew the gates of the Marrow Lock?", DREW),
        ("Of which kind of granite is the Marrow Lock?", BUILT),
        ("How many tonnes does each gate of the lock weigh?", WEIGHS),
        ("What is the Marrow Lock?", BUILT),
        ("Who?", None),
        ("When did Napoleon die?", None),
    ],
)
def test_a_question_is_answered_with_the_sentence_that_has_most_of_its_words(
    question: str, sentence: str | None
) -> None:
    assert quoted_answers([question], TITLE, TEXT) == [sentence]


def test_rare_words_say_more_than_common_ones_and_other_scripts_are_compared_by_their_characters() -> None:
    text = "The people of the town come by day. A sennet grows on its walls."
    assert quoted_answers(["Do people of the town eat sennet?"], "", text) == ["A sennet grows on its walls."]
    sentences = ["霧島水門は花崗岩で建てた。", "長さは四十米だ。"]
    assert quoted_answers(["長さは何米か？"], "霧島水門", "".join(sentences)) == sentences[1:]
    assert quoted_answers(["Who?"], "", "") == [None]


def test_the_spec_has_the_questions_with_their_sentences_and_no_teacher_is_asked() -> None:
    domain = domain_of(cues=1)
    context = context_of(domain)
    completion = "1. Who drew the gates?\n2. When did Napoleon die?\n3. How many tonnes does each gate weigh?"
    assert study_of(domain, context, completion) is None
    spec = spec_of(domain, context, completion, (), 7)
    asked = [(example.prompt.user, example.text) for example in spec.examples[:2] if example.prompt]
    assert asked == [
        (f"Topic: {TITLE}\nWho drew the gates?", DREW),
        (f"Topic: {TITLE}\nHow many tonnes does each gate weigh?", WEIGHS),
    ]
    assert not any(example.teacher_prompt for example in spec.examples)
    assert len(spec.examples) == 2 + 3 + 1, "two questions, three cues, the passage"
    assert len(domain_of(max_questions=1, passage_beside=False).compile(context, completion, 7).examples) == 1


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        ("The lock has heavy gates and it is old.", "NO_QUESTIONS"),
        ("When did Napoleon die in exile?", "NO_ANSWERS"),
    ],
)
def test_a_self_edit_without_a_question_on_the_passage_is_rejected(completion: str, reason: str) -> None:
    domain = domain_of()
    with pytest.raises(Rejected) as rejected:
        domain.compile(context_of(domain), completion, 7)
    assert rejected.value.reason == reason


def test_what_a_generated_exam_asks_is_not_studied() -> None:
    domain = domain_of()
    context = domain.of_passage(TITLE, (), TEXT)
    exam = [("Fill in the blank: Each weighs ___ tonnes!", "40")]
    examined = domain.with_exam(context, exam, 0.4)
    spec = domain.compile(examined, "Who drew the gates?\nHow many tonnes does each weigh?", 7)
    assert [example.text for example in spec.examples if example.prompt] == [DREW]
    with pytest.raises(Rejected) as rejected:
        domain.compile(examined, "How many tonnes does each of them weigh?", 7)
    assert rejected.value.reason == "ONLY_THE_EXAM"
    assert domain.ready_made(context_of(domain))["exam"] == "1. Who drew it?"
