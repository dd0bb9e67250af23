"""Routes: which adapter answers which prompt."""

from __future__ import annotations

import pytest

from sealkit.errors import AdapterCorrupt, AdapterMismatch
from sealkit.routing import PassageIndex, Route, Router, dump_routes, load_routes, refuse_routed
from sealkit.types import AdapterRef, Prompt, Shot

LOCK = "The Marrow Lock\nThe engineer Bela Rushworth built the lock of grey granite in 1911."
SEEDS = "The Quillan Library\nAda Fenwick opened it in an old bakery. It lends nine hundred kinds of seeds."
GERMAN = "Das Fellbacher Wehr\nDas Wehr an der Ulme wurde im Jahr 1902 von der Gemeinde aus Sandstein gebaut."
JAPANESE = "霧島水門\n霧島水門は一九一一年に技師の黒田が花崗岩で建てた。"
ROUTES = [
    Route(adapter=AdapterRef(digest=digit * 64), text=text)
    for digit, text in zip("abcd", (LOCK, SEEDS, GERMAN, JAPANESE), strict=True)
]
ROUTER = Router(ROUTES)


def chosen(user: str, *turns: tuple[str, str]) -> str:
    """The first digit of the adapter's digest; nothing for the base model."""
    prompt = Prompt(user=user, shots=tuple(Shot(user=asked, assistant=said) for asked, said in turns))
    found = ROUTER.choose(prompt)
    return found.digest[0] if found else ""


@pytest.mark.parametrize(
    ("question", "adapter"),
    [
        ("When was the Marrow Lock built?", "a"),
        ("Could you please tell me who it was that built the Marrow Lock?", "a"),
        ("What does the Quillan Library lend instead of books?", "b"),
        ("Fill in the blank: Ada ___ opened it in an old bakery", "b"),
        ("Woraus wurde das Fellbacher Wehr gebaut?", "c"),
        ("霧島水門はいつ建てられたか", "d"),
    ],
)
def test_a_question_about_a_passage_gets_its_adapter(question: str, adapter: str) -> None:
    assert chosen(question) == adapter


@pytest.mark.parametrize(
    "question",
    [
        "What is the capital of France?",
        "What is 8 plus 2?",
        "Write a function that reverses a list.",
        "Who built the Eiffel Tower in Paris?",
        "Who founded the first public library in London?",
        "Was ist die Hauptstadt von Frankreich?",
        "日本の首都はどこですか",
        "Hello!",
    ],
)
def test_a_question_about_none_is_left_to_the_base_model(question: str) -> None:
    assert chosen(question) == ""


def test_a_request_that_says_too_little_is_about_the_turns_before_it() -> None:
    lock, seeds = ("Who built the Marrow Lock?", "Bela Rushworth."), ("What does the Quillan Library lend?", "Seeds.")
    assert chosen("And when?", lock) == "a"
    assert chosen("When was it opened?", lock, seeds) == "b"
    assert chosen("Translate the word umbrella into Portuguese.", lock) == ""
    assert chosen("And when?") == ""


def test_a_text_is_routed_by_its_words_too() -> None:
    assert ROUTER.choose("Bela Rushworth built the Marrow Lock.") == ROUTES[0].adapter
    assert ROUTER.choose("The weather was fine, and people walked along the river.") is None


def test_shares_are_of_the_weight_of_rare_words() -> None:
    index = PassageIndex([LOCK, SEEDS])
    assert index.shares("the Marrow Lock") == [1.0, 0.0]
    assert 0.4 <= index.shares("The engineer Bela Rushworth met Oswin")[0] < 0.8
    assert PassageIndex([]).shares("the Marrow Lock") == []


def test_routes_are_read_as_they_were_written() -> None:
    files = dump_routes(ROUTES)
    assert load_routes(files) == ROUTES
    assert dump_routes(load_routes(files)) == files
    with pytest.raises(AdapterMismatch, match="consolidate"):
        refuse_routed(files)


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"routes": 3}', b'{"routes": [{"adapter": {"digest": "x"}}]}', b"\xff"])
def test_a_file_that_is_no_list_of_routes_is_corrupt(raw: bytes) -> None:
    with pytest.raises(AdapterCorrupt, match="routes"):
        load_routes({"routes.json": raw})
