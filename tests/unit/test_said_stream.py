"""What is given out of a completion while it is written is, together, what the whole is divided into."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealkit.reasoning import MARKERS, Said, SaidStream, split

THINK = MARKERS[0]
WHOLE = [
    "<think>\nFirst the river.\n\nThen </b> the town.</think>\n\nThe Ossel is long.\n",
    "<think></think>The Ossel < the Rhine.",
    "<think>So.</think> <answer>The Ossel.</answer> and more",
    "  <think>never ends",
    "No reasoning at all, but <th and </thinker.",
    "<think>a</think>b<think>c</think>d",
]


def in_pieces(text: str, cuts: list[int], stream: SaidStream) -> tuple[Said, list[Said]]:
    places = sorted({min(cut, len(text)) for cut in cuts})
    pieces = [stream.update(text[:place]) for place in places] + [stream.finish(text)]
    return stream.given, pieces


@given(st.sampled_from(WHOLE), st.booleans(), st.lists(st.integers(0, 80), max_size=40))
def test_the_pieces_are_the_whole_however_it_was_cut(text: str, opened: bool, cuts: list[int]) -> None:
    text = text.removeprefix("<think>") if opened else text
    whole = split(text, THINK, opened=opened)
    if not (opened or "<think>" in text):
        whole = Said(text)
    got, pieces = in_pieces(text, cuts, SaidStream(THINK, opened=opened))
    assert got == whole
    assert ("".join(p.text for p in pieces), "".join(p.reasoning for p in pieces)) == whole


@given(st.text("abc</think> "), st.lists(st.integers(0, 30), max_size=30))
def test_without_markers_it_is_the_text(text: str, cuts: list[int]) -> None:
    assert in_pieces(text, cuts, SaidStream())[0] == Said(text)


@given(st.text("ab", max_size=30), st.sampled_from(["aab", "bb", "abab"]))
def test_nothing_of_a_stop_text_is_given_out(text: str, stop: str) -> None:
    place = text.find(stop)
    stream = SaidStream(stop=(stop,))
    for length in range(len(text) if place < 0 else place + len(stop)):
        stream.update(text[:length])  # up to before the character that completes the stop text
    ended = text if place < 0 else text[:place]
    stream.finish(ended)
    assert stream.given == Said(ended)


@pytest.mark.parametrize("text", ["The river", "The river is long </think> and wide"])
def test_an_answer_that_was_begun_stays_an_answer(text: str) -> None:
    stream = SaidStream(THINK)
    assert stream.update("The river") == Said("The river")
    stream.finish(text)
    assert stream.given == Said(text)


def test_it_comes_early() -> None:
    stream = SaidStream(THINK)
    given_out = [
        stream.update(text) for text in ("<think>So", "<think>So it is</thi", "<think>So it is</think>\nYes, t")
    ]
    assert given_out == [Said("", "So"), Said("", " it is"), Said("Yes, t")]
