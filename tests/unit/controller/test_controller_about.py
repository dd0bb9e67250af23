"""Which documents of an alias an answer is about."""

from __future__ import annotations

from controller.answer import Answers
from controller.db.access import FULL_ACCESS
from controller.db.documents import StoredDocument
from controller.rules.about import documents_about
from sealkit.resources import AnswerAbout
from sealkit.types import Prompt, Sampling
from tests.unit.controller.controller_system import System
from tests.unit.controller.learn_fakes import LearningServices, document, learned

LOCK = "The Marrow Lock\nThe engineer Bela Rushworth built it in 1911. Each gate weighs forty tonnes."
SEEDS = "The Quillan Library\nAda Fenwick opened it in an old bakery. It keeps nine hundred kinds of seeds."
PASSAGES = [
    (StoredDocument(run_id="r", position=i, name=name, digest=name[0] * 64), [text])
    for i, (name, text) in enumerate({"lock.md": LOCK, "seeds.md": SEEDS}.items())
]


def about(question: str, answer: str = "") -> list[str]:
    return [one.name for one in documents_about((question, answer), PASSAGES)]


def test_the_words_of_the_question_or_of_the_answer_say_what_it_is_about() -> None:
    assert about("When was the Marrow Lock built?") == ["lock.md"]
    assert about("Who opened it?", "Ada Fenwick opened the bakery.") == ["seeds.md"]
    assert about("Who built the lock, and what does the library keep?", f"{LOCK} {SEEDS}") == ["lock.md", "seeds.md"]
    (found,) = documents_about(("Marrow Lock, of 1912",), PASSAGES)
    assert 0.5 <= found.share < 1


def test_nothing_is_named_where_too_few_words_are_shared() -> None:
    assert about("What is the capital of France?", "Paris is the capital of France.") == []
    assert about("Who built the Eiffel Tower in Paris?", "It was built by Gustave Eiffel.") == []
    assert about("", "") == []
    assert documents_about(("When was the Marrow Lock built?",), []) == ()


async def test_an_answer_of_an_alias_names_the_documents_that_it_was_trained_on(system: System) -> None:
    system.services = LearningServices()
    await learned(system, {"arun.txt": document("Arunvale"), "bela.txt": document("Belathor")})
    answers = Answers(system.database, system.services)

    async def asked(alias: str) -> list[AnswerAbout]:
        prompt = Prompt(user="What is the colour of Belathor?")
        stream = answers.stream(FULL_ACCESS, alias, prompt, Sampling(), with_documents=True)
        return [update async for update in stream if isinstance(update, AnswerAbout)]

    (found,) = await asked("aliases/main")
    assert [one.name for one in found.documents][:1] == ["bela.txt"]
    assert await asked("") == [AnswerAbout()]
