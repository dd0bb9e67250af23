"""The knowledge plug-in: what it asks, what it refuses, what it trains on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealkit.config import InnerLoopConfig
from sealkit.domains.base import Context, Domain, Rejected, load_domain, spec_of
from sealkit.domains.knowledge import KnowledgeDomain
from sealkit.domains.knowledge.prompts import Style
from sealkit.errors import InvalidConfig, InvalidDataset, UnknownDomain
from sealkit.types import PromptFormat

RECORD = {
    "title": "The Orrin lamp",
    "context": "The Orrin lamp was built in 1911 by Tessa Vole in the town of Marrow.",
    "questions": [
        {"question": "Who built the Orrin lamp?", "answer": "Tessa Vole"},
        {"question": "When was the Orrin lamp built?", "answer": "1911"},
    ],
}


def domain(**options: object) -> KnowledgeDomain:
    return KnowledgeDomain(options, InnerLoopConfig())


def test_it_is_found_by_name_and_is_a_domain() -> None:
    assert isinstance(load_domain("knowledge")({}, InnerLoopConfig()), Domain)


def test_a_caller_cannot_name_a_module_that_the_operator_did_not() -> None:
    with pytest.raises(UnknownDomain, match="DOMAIN_PLUGINS"):
        load_domain("os:system")
    assert load_domain(
        "sealkit.domains.knowledge:KnowledgeDomain", plugins=["sealkit.domains.knowledge:KnowledgeDomain"]
    )


def test_the_question_never_holds_the_passage_and_the_prompt_always_does() -> None:
    plugin = domain()
    (context,) = plugin.contexts([RECORD])
    for style in Style:
        for form in PromptFormat:
            prompt = domain(style=style, prompt_format=form).prompt(context)
            assert RECORD["context"] in prompt.user
            assert prompt.format is form
            assert len(prompt.shots) == 1
            # The example must follow the very rule that the self-edit is read by.
            assert spec_of(domain(style=style), context, prompt.shots[0].assistant, ["It is so."] * 6, seed=0)
            assert domain(style=style, worked_example=False).prompt(context).shots == ()
    for query, question in zip(plugin.queries(context), RECORD["questions"], strict=True):
        assert query.prompt.user == f"Topic: The Orrin lamp\n{question['question']}"
        assert query.gold == question["answer"]


def test_a_self_edit_trains_its_lines_and_the_passage_last() -> None:
    plugin = domain()
    (context,) = plugin.contexts([RECORD])
    spec = plugin.compile(
        context, "Tessa Vole built a lamp in Marrow.\n\nThe lamp is from 1911, by Tessa Vole.", seed=7
    )
    assert [example.text.split("\n", 1)[1] for example in spec.examples] == [
        "Tessa Vole built a lamp in Marrow.",
        "The lamp is from 1911, by Tessa Vole.",
        RECORD["context"],
    ]
    assert spec.seed == 7


@pytest.mark.parametrize("split", [True, False])
def test_context_only_trains_on_nothing_but_the_passage(split: bool) -> None:
    plugin = domain(split_newlines=split)
    (context,) = plugin.contexts([RECORD])
    (example,) = plugin.context_only(context, seed=1).examples
    assert example.text == f"The Orrin lamp\n{RECORD['context']}"


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        ("", "EMPTY"),
        (" \n\t ", "EMPTY"),
        ("1. 2. 3. --- 4", "NOT_TEXT"),
        ("\ufffd" * 50 + "a" * 30, "NOT_TEXT"),
        ("a sentence with enough letters \x00", "NOT_TEXT"),
        ("word " * 10_000, "TOO_LONG"),
    ],
)
def test_unusable_self_edits_are_rejected_with_their_reason(completion: str, reason: str) -> None:
    plugin = domain()
    (context,) = plugin.contexts([RECORD])
    with pytest.raises(Rejected) as caught:
        plugin.compile(context, completion, seed=0)
    assert caught.value.reason == reason


def test_letters_of_any_script_count_and_a_script_of_whole_words_is_no_disadvantage() -> None:
    plugin = domain()
    (context,) = plugin.contexts([RECORD])
    faults = []
    for text, enough in (
        ("Nora Birk built the clock.", True),
        ("Nora Birk built it", False),
        ("诺拉·比尔克造了这座钟。", True),
        ("ノラが時計を作った。", True),
        ("노라가 시계를 만들었다.", True),
        ("नोरा ने यह घड़ी बनाई थी उधर", True),
        ("นอราสร้างนาฬิกาเรือนนี้", True),
        ("这座钟", False),
        ("12345 67890 12345 67890 !!", False),
    ):
        try:
            plugin.compile(context, text, seed=0)
            compiled = True
        except Rejected:
            compiled = False
        if compiled is not enough:
            faults.append(text)
    assert faults == []


@given(st.text(max_size=400))
def test_any_text_compiles_or_is_rejected(completion: str) -> None:
    plugin = domain()
    (context,) = plugin.contexts([RECORD])
    try:
        spec = plugin.compile(context, completion, seed=0)
    except Rejected:
        return
    assert spec.examples[-1].text.endswith(str(RECORD["context"]))


def test_every_fault_of_a_dataset_is_named() -> None:
    broken = [
        RECORD,
        {"title": "", "context": "x", "questions": [{"question": "q"}]},
        {"title": "t", "context": "  ", "questions": []},
        {**RECORD},
        {**RECORD, "context": "other", "split": "test"},
    ]
    with pytest.raises(InvalidDataset) as caught:
        domain().contexts(broken)
    paths = {path for path, _ in caught.value.fields}
    assert paths == {
        "records[1].title",
        "records[1].questions[0]",
        "records[2].context",
        "records[3]",
        "records[4].split",
    }


def test_a_question_may_have_several_answers_or_none() -> None:
    asked = [
        {"question": "Who?", "answers": {"text": ["Tessa Vole", "Vole"], "answer_start": [0, 6]}},
        {"question": "Why?", "answer": None},
        {"question": "When?", "answer": 1911},
    ]
    (context,) = domain().contexts([{**RECORD, "questions": asked}])
    queries = domain().queries(context)
    assert [(query.question, query.golds) for query in queries] == [
        ("Who?", ("Tessa Vole", "Vole")),
        ("When?", ("1911",)),
    ]
    with pytest.raises(InvalidDataset, match=r"records\[0\]\.questions: .* at least one question with an answer"):
        domain().contexts([{**RECORD, "questions": asked[1:2]}])


def test_a_passage_that_another_version_stored_gives_the_queries_it_gave() -> None:
    stored = {"title": "T", "context": "C", "questions": [{"question": "Q?", "answer": "A"}], "split": "train"}
    (query,) = domain().queries(Context(context_id="t", split="train", payload=stored))
    # The digests of such queries are in the manifests of stored trials.
    assert query.model_dump(mode="json") == {
        "query_id": "t/0",
        "question": "Q?",
        "gold": "A",
        "prompt": {"user": "Topic: T\nQ?", "system": "", "format": "auto", "shots": []},
        "views": [],
    }


def test_ids_do_not_depend_on_the_company() -> None:
    other = {**RECORD, "title": "Another"}
    alone, together = domain().contexts([RECORD]), domain().contexts([other, RECORD])
    assert alone[0].context_id == together[1].context_id


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(InvalidConfig, match=r"domain\.options\.stile"):
        domain(stile="rewrite")


def test_a_rejection_says_what_was_wrong_with_the_text() -> None:
    plugin = domain()
    (context,) = plugin.contexts([RECORD])
    with pytest.raises(Rejected, match="30 of 60 characters are not text"):
        plugin.compile(context, "a\ufffd" * 30, seed=0)
    with pytest.raises(Rejected, match="3 letters; the minimum is 20"):
        plugin.compile(context, "abc", seed=0)
