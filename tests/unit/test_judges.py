"""Judges: what a person would call right or wrong, and would be surprised to see graded otherwise."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sealkit.errors import UnknownJudge
from sealkit.judges import Answer, Judgement, judge_any, judge_names, load_judge
from sealkit.judges.content import decide
from sealkit.judges.exact import normalised
from sealkit.judges.settings import JudgeSettings
from sealkit.types import Outcome

SETTINGS = JudgeSettings(judge_url="http://judge/v1", judge_model="m", judge_cache_url="sqlite://")

CASES = [
    # question, gold, answer, whether it is right
    ("Who built it?", "Ada Lovelace", "It was built by Ada Lovelace in London.", True),
    ("Who built it?", "Ada Lovelace", "Charles Babbage", False),
    ("Who built it?", "Arthur H. Compton", "Arthur Compton", True),
    ("Who built it?", "Café Müller", "cafe muller", True),
    ("Who built it?", "Ada Lovelace", "𝐀𝐝𝐚 𝐋𝐨𝐯𝐞𝐥𝐚𝐜𝐞", True),
    ("Which company did he own?", "Ohio Company", "A company.", False),
    ("Which company did he own?", "Ohio Company", "Ohio", True),
    ("How many towers has it?", "12", "It has twelve towers.", True),
    ("How many towers has it?", "twenty-one", "21", True),
    ("How many towers has it?", "12", "It has 112 towers.", False),
    ("How many live there?", "2,500 people", "About 2500 people live there.", True),
    ("How many live there?", "2,500 people", "About 250 people live there.", False),
    ("How long is it?", "1.5 km", "15 km", False),
    ("Which floor?", "the 3rd floor", "3rd", True),
    ("In which century?", "the 19th century", "In the nineteenth century.", True),
    ("What did it cost?", "$2.5 million", "About 2,500,000 dollars.", True),
    ("What did it cost?", "$2.5 million", "About $2.5 billion.", False),
    ("What did it cost?", "two hundred thousand marks", "200,000 marks", True),
    ("What causes it?", "germs", "Microorganisms cause it.", True),
    ("How many of the 11 to 18 schools are there?", "eleven", "There are 13 such 11 to 18 schools.", False),
    ("How many of the 11 to 18 schools are there?", "eleven", "Eleven.", True),
    ("When did it open?", "September 1831", "It opened in 1831.", True),
    ("When did it open?", "September 1831", "In October 1831.", False),
    ("When did it open?", "4 May 1831", "On 5 May 1831.", False),
    ("On which date did it open?", "4 May 1831", "In 1831.", False),
    ("When did it end?", "190 BC", "It ended in 190 BCE.", True),
    ("What share was lost?", "15%", "15 percent", True),
    ("What share was lost?", "15%", "50 percent", False),
    ("Is there damage?", "no", "No, there is no damage.", True),
    ("Is there damage?", "no", "Yes, there is a lot.", False),
    ("Is there damage?", "There is little to no damage.", "There isn't any.", True),
    ("Did it fly?", "yes", "It never flew.", False),
    ("Are they bred inside or outside?", "outside", "Inside, and only rarely outside.", False),
    ("Are they bred inside or outside?", "outside", "Outside rather than inside.", True),
    ("Which country agreed?", "France", "The French agreed.", True),
    ("What are the colours?", "red, green and blue", "Green, blue and red.", True),
    ("What are the colours?", "red, green and blue", "Only red.", False),
    ("What is it called?", "terra preta (black earth)", "Terra preta", True),
    ("What did it do?", "began to shrink", "It started to decline.", True),
    ("What is it made of?", "copper", "coper", True),
    ("What is the title?", "The Who", "It is The Who.", True),
    ("What is it made of?", "copper", "", False),
]


@pytest.mark.parametrize(("question", "gold", "answer", "right"), CASES)
def test_content(question: str, gold: str, answer: str, right: bool) -> None:
    assert decide(question, gold, answer).outcome is (Outcome.CORRECT if right else Outcome.INCORRECT)


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        ("Paris", " paris. ", True),
        ("the Moon", "Moon", True),
        ("12", "twelve", True),
        ("-5", "5", False),
        ("1.5", "15", False),
        ("1,500", "1500", True),
        ("blue", "Blue\nThe sky is blue because of scattering.", True),
        ("blue", "blue-green", False),
        ("ice-cream", "ice cream", True),
        ("Paris", "Not Paris", False),
        ("Paris", "", False),
        ("1/2", "12", False),
        ("--A", "a", True),
        ("snow_white", "Snow White", True),
    ],
)
async def test_exact(gold: str, answer: str, right: bool) -> None:
    judged = await load_judge("exact").judge("q", gold, [Answer(answer)])
    assert judged.outcome is (Outcome.CORRECT if right else Outcome.INCORRECT)


@pytest.mark.parametrize("name", judge_names())
async def test_an_empty_gold_is_ungraded_not_wrong(name: str) -> None:
    assert (await load_judge(name, SETTINGS).judge("q", " . ", [Answer("anything")])).outcome is Outcome.UNGRADED


async def test_any_of_several_golds_is_right() -> None:
    golds = ("21 March 1842", "1842", "—")
    cases = [
        ("In 1842.", "content", True),
        ("In 1843.", "content", False),
        ("1842", "exact", True),
        ("?", "exact", False),
    ]
    for answer, name, right in cases:
        judged = await judge_any(load_judge(name), "When was it built?", golds, [Answer(answer)])
        assert judged.outcome is (Outcome.CORRECT if right else Outcome.INCORRECT), (answer, name)
    nothing = await judge_any(load_judge("exact"), "q", ("—", " . "), [Answer("anything")])
    assert nothing.outcome is Outcome.UNGRADED  # never wrong for want of a gold


async def test_a_judge_that_fails_on_one_gold_has_not_said_that_the_answer_is_wrong() -> None:
    class Failing:
        name = version = "failing"
        asked = 0

        async def judge(self, question: str, gold: str, answers: object) -> Judgement:
            self.asked += 1
            return Judgement({"no": Outcome.INCORRECT, "yes": Outcome.CORRECT}.get(gold, Outcome.UNGRADED), gold)

    judge = Failing()
    assert await judge_any(judge, "q", ("no", "lost", "no"), [Answer("a")]) == Judgement(Outcome.UNGRADED, "lost")
    assert (await judge_any(judge, "q", ("lost", "yes", "no"), [Answer("a")])).outcome is Outcome.CORRECT
    assert judge.asked == 3 + 2  # a paid judge is not asked again once one has said yes


def test_an_unknown_judge_is_named_with_the_known_ones() -> None:
    with pytest.raises(UnknownJudge, match=r"'gpt'.*content, exact"):
        load_judge("gpt")


@pytest.mark.parametrize("name", judge_names())
def test_every_judge_says_what_it_is(name: str) -> None:
    judge = load_judge(name, SETTINGS)
    assert judge.name == name
    assert judge.version


@given(st.text(), st.text(), st.text())
def test_any_text_gets_a_verdict(question: str, gold: str, answer: str) -> None:
    assert decide(question, gold, answer).outcome in Outcome


@example("1. ")
@given(st.text(alphabet="abc 12.,-'()%é", min_size=1))
def test_the_gold_itself_is_never_wrong(gold: str) -> None:
    assert decide("What is it?", gold, gold).outcome is not Outcome.INCORRECT


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalised(text)
    assert normalised(once) == once or once.startswith(("a ", "an ", "the "))
