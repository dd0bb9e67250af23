"""The completion-to-sequences rules: worked cases, and properties on any text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealkit.domains.knowledge import training_sequences

# Text that often holds what the rules look for, so that the properties are tried on more than plain lines.
_marked = st.lists(
    st.sampled_from(
        ["---", "Question 1: ", "Question 2:", "Answer: ", "\n", "\n\n", "1. ", "2. ", "Sure:", " ", "x", "\u2028"]
    )
    | st.text(max_size=5),
    max_size=12,
).map("".join)
completions = st.text() | _marked


def split(completion: str, *, split_newlines: bool = True) -> list[str]:
    """The examples alone, without title and passage."""
    return [
        s.removeprefix("T\n")
        for s in training_sequences(completion, title="T", context="ctx", split_newlines=split_newlines)
    ][:-1]


@pytest.mark.parametrize(
    ("completion", "whole", "by_line"),
    [
        ("one\n\ntwo\r\nthree", ["one\n\ntwo\r\nthree"], ["one", "two", "three"]),
        ("a---b --- c", ["a", "b", "c"], ["a", "b", "c"]),
        ("---", ["---"], ["---"]),
        ("----\nfoo", ["-\nfoo"], ["-", "foo"]),
        ("Sure:\n1. a\n2. b", ["Sure:\n1. a\n2. b"], ["1. a", "2. b"]),
        ("Sure:\n---\n1. a", ["Sure:", "1. a"], ["1. a"]),
        ("Sure:\n- a\n- b", ["Sure:\n- a\n- b"], ["Sure:", "- a", "- b"]),
        ("1. a", ["1. a"], ["1. a"]),
        ("", [""], []),
        (" \n ", [""], []),
    ],
)
def test_worked_examples(completion: str, whole: list[str], by_line: list[str]) -> None:
    assert split(completion, split_newlines=False) == whole
    assert split(completion) == by_line


def test_a_continued_first_question_gets_its_label_back() -> None:
    text = "Who?\nAnswer: Ada.\n\nQuestion 2: When?\nAnswer: 1840."
    assert split(text) == ["Question 1: Who?\nAnswer: Ada.", "Question 2: When?\nAnswer: 1840."]
    assert split("Question 1: " + text) == split(text)


def test_the_blank_line_between_later_questions_stays() -> None:
    text = "a?\nAnswer: b\nQuestion 2: c?\nAnswer: d\n\nQuestion 3: e?\nAnswer: f\n"
    assert split(text)[1:] == ["Question 2: c?\nAnswer: d\n", "Question 3: e?\nAnswer: f"]


def test_a_separator_inside_questions_is_text() -> None:
    assert split("Question 1: a?\nAnswer: b\n---\nQuestion 2: c?")[0] == "Question 1: a?\nAnswer: b\n---"


@pytest.mark.parametrize(
    "text",
    ["Question 1: a\nAnswer 1: b", "question 1: a\nanswer: b", "Question: a\nAnswer: b"],
    ids=["numbered", "lower", "bare"],
)
def test_other_question_forms_are_lines(text: str) -> None:
    assert split(text) == text.splitlines()


def test_title_is_kept_as_given_and_the_passage_is_stripped() -> None:
    assert training_sequences("a", title="T\n", context=" ctx \n", split_newlines=True) == ["T\n\na", "T\n\nctx"]


@given(completion=completions, title=st.text(max_size=10), context=st.text(max_size=30), split_newlines=st.booleans())
def test_every_sequence_is_headed_and_the_passage_is_last(
    completion: str, title: str, context: str, split_newlines: bool
) -> None:
    sequences = training_sequences(completion, title=title, context=context, split_newlines=split_newlines)
    assert sequences[-1] == f"{title}\n{context.strip()}"
    assert all(sequence.startswith(f"{title}\n") for sequence in sequences)


@given(completion=completions, split_newlines=st.booleans())
def test_no_example_is_empty_but_the_bare_title(completion: str, split_newlines: bool) -> None:
    examples = split(completion, split_newlines=split_newlines)
    if completion.strip():
        assert examples
        assert all(example.strip() for example in examples)
    else:
        assert examples == ([] if split_newlines else [""])


@given(completions)
def test_outer_whitespace_changes_nothing(completion: str) -> None:
    assert split(f"\n {completion} \n") == split(completion)


@given(completions)
def test_only_separators_and_blanks_are_dropped_from_whole_parts(completion: str) -> None:
    def letters(text: str) -> str:
        return "".join(text.replace("---", "").split())

    examples = split(completion, split_newlines=False)
    if examples != [completion.strip()]:
        assert "".join(map(letters, examples)) == letters(completion)
