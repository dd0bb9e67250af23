"""Self-edits that are questions, and what is distilled: how they are read, asked, filtered and trained on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealkit.config import InnerLoopConfig
from sealkit.domains.arc.plugin import ArcDomain
from sealkit.domains.base import Context, Rejected, Studies, Study, spec_of, study_of
from sealkit.domains.knowledge import KnowledgeDomain
from sealkit.domains.knowledge.prompts import Style
from sealkit.domains.knowledge.questions import read_questions, says_something, words_of
from sealkit.types import Distillation, PromptFormat

PASSAGE = "The Orrin lamp was built in 1911 by Tessa Vole in the town of Marrow."
RECORD = {
    "title": "The Orrin lamp",
    "context": PASSAGE,
    "questions": [{"question": "Who built the Orrin lamp?", "answer": "Tessa Vole"}],
}
ASKED = "1. Who built the Orrin lamp?\n2. When was the Orrin lamp built?"
ANSWERS = ("Tessa Vole built it.", " In 1911. ")


def domain(objective: str = "distil", **options: Any) -> KnowledgeDomain:
    return KnowledgeDomain({"style": "questions", **options}, InnerLoopConfig(objective=objective))


def context() -> Context:
    (found,) = domain().contexts([RECORD])
    return found


def studied(plugin: KnowledgeDomain) -> Study:
    study = plugin.study(context(), ASKED)
    assert study is not None
    return study


@pytest.mark.parametrize(
    ("text", "questions"),
    [
        ("1. Who built it?\n2) Where is it?", ["Who built it?", "Where is it?"]),
        ("(3) Who built it?\n- Where is it?\n* Why?", ["Who built it?", "Where is it?", "Why?"]),
        ("Question 1: Who built it?\nAnswer: Tessa Vole", ["Who built it?"]),
        ("Q: **Who built it?**", ["Who built it?"]),
        ('"Who built it?"', ["Who built it?"]),
        ("Who built it? Tessa Vole.", ["Who built it?"]),
        ("Is it old?", ["Is it old?"]),
        ("what is it made of\nWhich town.\nHow is the", ["what is it made of?", "Which town?"]),
        ("Here are the questions:\nWho built it?\nIt was built.", ["Who built it?"]),
        ("Who built it?\nWHO BUILT IT ?\n2. Who built it", ["Who built it?"]),
        ("1. 3.5 litres of what?", ["3.5 litres of what?"]),
        ("1、谁建的？\n（2）在哪里？", ["谁建的？", "在哪里？"]),
        ("١. من بناه؟", ["من بناه؟"]),
    ],
)
def test_a_question_a_line_without_numbering_and_each_once(text: str, questions: list[str]) -> None:
    assert read_questions(text, 24) == questions


@pytest.mark.parametrize("text", ["", "?\n??", "The lamp was built in 1911.", "Who built the"])
def test_a_self_edit_that_asks_nothing_is_rejected(text: str) -> None:
    with pytest.raises(Rejected) as caught:
        read_questions(text, 24)
    assert caught.value.reason == "NO_QUESTIONS"


@given(
    st.text(max_size=300)
    | st.lists(st.sampled_from(["1.", "-", "Who", "x", "?", "\n", "Q:"]), max_size=60).map("".join)
)
def test_any_text_gives_few_distinct_questions_or_is_rejected(text: str) -> None:
    try:
        found = read_questions(text, 5)
    except Rejected:
        return
    assert 0 < len(found) <= 5
    assert len({words_of(question) for question in found}) == len(found)
    assert all(question.endswith("?") and len(question.splitlines()) == 1 for question in found)


@pytest.mark.parametrize("form", PromptFormat)
def test_the_student_is_asked_as_the_held_out_questions_are_and_the_teacher_has_the_passage(form: PromptFormat) -> None:
    plugin = domain(question_format=form)
    first, _ = studied(plugin).items
    (query,) = plugin.queries(context())
    assert first.prompt == query.prompt
    assert PASSAGE in first.teacher_prompt.user
    assert first.teacher_prompt.user.rstrip().endswith("Who built the Orrin lamp?")
    assert first.teacher_prompt.format is form


def test_the_teacher_may_be_shown_how_to_answer() -> None:
    worked, plain = domain(teacher_style="worked"), domain(teacher_style="bare")
    (first, _), (bare, _) = studied(worked).items, studied(plain).items
    assert first.teacher_prompt.user == bare.teacher_prompt.user
    assert (len(first.teacher_prompt.shots), len(bare.teacher_prompt.shots)) == (2, 0)
    assert all(shot.assistant.endswith(".") and shot.user.endswith("?") for shot in first.teacher_prompt.shots)


def test_distilled_answers_have_a_teacher_and_the_passage_beside_them_has_none() -> None:
    plugin = domain()
    spec = plugin.teach(context(), studied(plugin), ANSWERS, seed=7)
    *answers, passage = spec.examples
    assert [example.text for example in answers] == ["Tessa Vole built it.", "In 1911."]
    assert [example.prompt for example in answers] == [item.prompt for item in studied(plugin).items]
    assert [example.teacher_prompt for example in answers] == [item.teacher_prompt for item in studied(plugin).items]
    assert (passage.text, passage.prompt, passage.teacher_prompt) == (f"The Orrin lamp\n{PASSAGE}", None, None)
    assert plugin.context_only(context(), 7).examples == (passage,)
    assert (spec.seed, spec.distillation) == (7, Distillation())


def test_with_cross_entropy_the_answers_are_what_is_trained_on() -> None:
    plugin = domain("sft", passage_beside=False)
    spec = plugin.teach(context(), studied(plugin), ANSWERS, seed=0)
    assert [example.text for example in spec.examples] == ["Tessa Vole built it.", "In 1911."]
    assert all(example.prompt is not None and example.teacher_prompt is None for example in spec.examples)


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("Tessa Vole.", True),
        ("1911", True),
        ("Unknown hands built it.", True),
        ("Not far from Marrow.", True),
        ("", False),
        (" ... ", False),
        ("Who built the Orrin lamp", False),
        ("Who knows?", False),
        ("I don\N{RIGHT SINGLE QUOTATION MARK}t know.", False),
        ("The passage does not say who built it.", False),
        ("It is not mentioned in the text.", False),
        ("Unknown.", False),
        ("The builder of the lamp is unknown.", False),
        ("The name of the builder is not explicitly mentioned in the passage, but he lived in Marrow.", False),
        ("Its builder, not given to talk, was Tessa Vole.", True),
        ("I'm sorry, but as an AI I cannot say.", False),
    ],
)
def test_answers_that_say_nothing_are_left_out(answer: str, kept: bool) -> None:
    assert says_something("Who built the Orrin lamp?", answer) is kept
    plugin = domain()
    texts = [e.text for e in plugin.teach(context(), studied(plugin), [answer, "In 1911."], seed=0).examples[:-1]]
    assert texts == ([answer.strip()] if kept else []) + ["In 1911."]


def test_where_no_answer_is_left_the_self_edit_is_rejected() -> None:
    for options, answers in (({}, ["I don't know", ""]), ({"filter_answers": False}, ["", " "])):
        plugin = domain(**options)
        with pytest.raises(Rejected) as caught:
            plugin.teach(context(), studied(plugin), answers, seed=0)
        assert caught.value.reason == "NO_ANSWERS"
    unfiltered = domain(filter_answers=False)
    assert (
        unfiltered.teach(context(), studied(unfiltered), ["I don't know", ""], seed=0).examples[0].text
        == "I don't know"
    )


def test_only_so_many_questions_are_asked() -> None:
    many = "\n".join(f"{i}. What is number {i}?" for i in range(40))
    for options, count in (({}, 24), ({"max_questions": 3}, 3)):
        study = domain(**options).study(context(), many)
        assert study is not None
        assert len(study.items) == count


@pytest.mark.parametrize("split", [True, False])
def test_a_distilled_note_is_said_with_and_without_the_passage(split: bool) -> None:
    notes = "Tessa Vole built a lamp in Marrow.\nThe lamp is from 1911."
    told, plain = (
        KnowledgeDomain({"split_newlines": split}, InnerLoopConfig(objective=objective)).compile(context(), notes, 0)
        for objective in ("distil", "sft")
    )
    assert study_of(domain(style="implications"), context(), notes) is None
    for example, same in zip(told.examples[:-1], plain.examples[:-1], strict=True):
        assert example.prompt is not None
        assert example.teacher_prompt is not None
        assert f"{example.prompt.user}{example.text}" == same.text, "as many characters, in the same order"
        assert example.teacher_prompt.user == f"The Orrin lamp\n{PASSAGE}\n"
        assert example.prompt.format is example.teacher_prompt.format is PromptFormat.PLAIN
    assert told.examples[-1] == plain.examples[-1]


def test_the_passage_may_be_left_out_beside_notes_too() -> None:
    plugin = KnowledgeDomain({"passage_beside": False}, InnerLoopConfig())
    spec = plugin.compile(context(), "Tessa Vole built a lamp in Marrow.", seed=0)
    assert [example.text for example in spec.examples] == ["The Orrin lamp\nTessa Vole built a lamp in Marrow."]


def test_questions_need_a_teacher_and_other_self_edits_none() -> None:
    with pytest.raises(Rejected) as caught:
        domain().compile(context(), ASKED, seed=0)
    assert caught.value.reason == "UNANSWERED"
    assert spec_of(domain(), context(), ASKED, ANSWERS, 0) == domain().teach(context(), studied(domain()), ANSWERS, 0)
    for style in set(Style) - {Style.QUESTIONS}:
        plugin = domain(style=style)
        assert spec_of(plugin, context(), ASKED, (), 0) == plugin.compile(context(), ASKED, 0)
    assert isinstance(domain(), Studies)
    assert not isinstance(ArcDomain({}, InnerLoopConfig()), Studies)


def test_the_exam_itself_is_a_ready_made_self_edit_only_if_it_was_given() -> None:
    plugin, given = domain(), context()
    assert plugin.ready_made(given) == {"exam": "1. Who built the Orrin lamp?"}
    assert KnowledgeDomain({"style": "implications"}, InnerLoopConfig()).ready_made(given) == {}
    assert plugin.ready_made(given.changed(generated=True)) == {}, "no study may contain a generated exam"
    assert plugin.ready_made(given.changed(payload={**given.payload, "questions": []})) == {}
