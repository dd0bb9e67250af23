"""Cues: a few words of a sentence as the question, the sentence as the answer."""

from __future__ import annotations

from sealkit.config import InnerLoopConfig
from sealkit.domains.knowledge import KnowledgeDomain
from sealkit.domains.knowledge.cues import cues_of

TITLE = "The Marrow Lock"
TEXT = (
    "The Marrow Lock was built in 1911 out of grey granite. Bela Rushworth, the engineer, drew its gates.\n"
    "Each weighs 40 tonnes!"
)
SENTENCES = (
    "The Marrow Lock was built in 1911 out of grey granite.",
    "Bela Rushworth, the engineer, drew its gates.",
    "Each weighs 40 tonnes!",
)


def test_each_sentence_answers_cues_of_its_own_words() -> None:
    found = list(cues_of(TITLE, TEXT, 3, seed=1))
    assert [sentence for _, sentence in found] == [one for one in SENTENCES for _ in range(3)]
    for cue, sentence in found:
        words = cue.removesuffix("?").split(", ")
        assert 2 <= len(words) <= 3
        assert all(word in sentence for word in words)
        assert not {"Marrow", "Lock", "was", "the", "its", "of"}.intersection(words)


def test_cues_are_drawn_by_seed() -> None:
    assert list(cues_of(TITLE, TEXT, 4, seed=1)) == list(cues_of(TITLE, TEXT, 4, seed=1))
    assert list(cues_of(TITLE, TEXT, 4, seed=1)) != list(cues_of(TITLE, TEXT, 4, seed=2))


def test_a_sentence_of_the_title_alone_and_other_scripts_do_no_harm() -> None:
    assert list(cues_of(TITLE, "The Marrow Lock.", 2, seed=0)) == []
    assert all(
        sentence in "霧島水門は花崗岩で建てた。長さは四十米だ。"
        for _, sentence in cues_of("門", "霧島水門は花崗岩で建てた。長さは四十米だ。", 2, seed=0)
    )
    assert list(cues_of("", "", 2, seed=0)) == []


def test_the_spec_has_them_beside_the_self_edit_and_the_passage() -> None:
    record = {"title": TITLE, "context": TEXT, "questions": [{"question": "Who drew it?", "answer": "Bela"}]}
    domain = KnowledgeDomain({"cues": 2}, InnerLoopConfig())
    (context,) = domain.contexts([record])
    spec = domain.compile(context, "The lock has heavy gates.\nIt is of granite.", 7)
    cued = [example for example in spec.examples if example.prompt]
    assert [example.text for example in cued] == [one for one in SENTENCES for _ in range(2)]
    assert all(example.prompt and example.prompt.user.startswith(f"Topic: {TITLE}\n") for example in cued)
    assert spec.examples[-1].text == f"{TITLE}\n{TEXT}"
    assert not any(example.prompt for example in domain.context_only(context, 7).examples)
    without = KnowledgeDomain({}, InnerLoopConfig()).compile(context, "The lock has heavy gates.\nIt is of granite.", 7)
    assert [e for e in spec.examples if not e.prompt] == list(without.examples)
