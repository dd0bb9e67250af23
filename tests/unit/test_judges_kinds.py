"""The judge `content` on golds that are more, or less, than English words: other scripts, single letters, names of
programming languages, signs, units, dates. Verdicts are those a person gives who reads the language."""

from __future__ import annotations

from collections.abc import Sequence

from sealkit.judges.content import decide
from sealkit.types import Outcome

Case = tuple[str, str, Sequence[str], Sequence[str]]
"""Question, gold, right answers, wrong answers."""

SCRIPTS: list[Case] = [
    (
        "首都はどこですか。",
        "東京",
        ["日本の首都は東京です。", "東京", "「東京」だと思います"],
        ["京都です。", "", "Kyoto"],
    ),
    ("谁建造的？", "毛泽东", ["这座塔是毛泽东建的。"], ["是毛岸英建的。", "泽东毛"]),
    ("什么学校？", "北京大学", ["他在北京大学学习。"], ["北京的大学很多。"]),
    ("哪一年？", "1842年", ["建于1842年。", "１８４２"], ["建于1843年。"]),
    ("何ですか。", "がく", ["がくです。"], ["かくです。"]),
    ("何ですか。", "ガス", ["ｶﾞｽです。"], ["カスです。"]),
    (
        "どこにありますか。",
        "東京都港区の海に近い公園の中",
        ["東京都港区にあり、海に近い公園の中です。"],
        ["大阪の山にある公園。"],
    ),
    ("Which city?", "東京 (Tokyo)", ["It is 東京."], ["It is 大阪."]),
    ("ใครสร้าง", "นอรา เบิร์ก", ["หอนี้สร้างโดยนอรา เบิร์กในปี 1842"], ["หอนี้สร้างโดยอานา"]),
    ("อะไร", "ป่า", ["ในป่าใหญ่"], ["ปา", "ป้า"]),
    ("어디?", "서울", ["수도는 서울입니다.", "서울"], ["수도는 부산입니다."]),
    ("क्या?", "हिन्दी", ["यह हिन्दी है।"], ["यह उर्दू है।"]),
    ("कितने?", "५", ["5", "५ लोग"], ["6"]),
    ("كم؟", "٢٥", ["25"], ["٢٦"]),
    ("Кто?", "Лев Толстой", ["Роман написал Лев Толстой."], ["Фёдор Достоевский."]),
    ("Ποια πόλη;", "Αθήνα", ["Η πρωτεύουσα είναι η Αθήνα."], ["Η Πάτρα."]),
]
LETTERS: list[Case] = [
    (
        "Which one?",
        "A",
        ["A", "a", "(A)", "**A**", "A) the first", "A. A banana", "The answer is A.", "Answer: A", "A is right."],
        ["a banana", "A banana is a fruit.", "B. A banana", "B", "I'd say B.", "An apple"],
    ),
    ("Which one?", "D", ["D", "It is D, I think."], ["I'd say B.", "did", "A. D is wrong."]),
    ("Who?", "I", ["It is I."], ["I think it was Ann."]),
    ("Which vitamin?", "vitamin C", ["Vitamin C.", "It is C."], ["Vitamin D", "vitamin B12"]),
    ("What is it?", "hepatitis B", ["Hepatitis B"], ["hepatitis C"]),
    ("Which war?", "World War I", ["The First World War.", "World War I"], ["The Crimean conflict"]),
    ("Which field?", "IT", ["He works in IT."], ["It is a dog."]),
    ("Which novel?", "It", ["The novel is It.", '"It"'], ["It is a clown's story."]),
]
LANGUAGES: list[Case] = [
    ("In which language?", "C", ["It is written in C.", "C"], ["C++", "It was C# then.", "It can be seen."]),
    ("In which language?", "C++", ["It is written in C++.", "c++"], ["C", "C#"]),
    ("In which language?", "C#", ["C#", "C sharp"], ["C", "C++", "F#"]),
    ("In which language?", "R", ["They used R and Python."], ["They used Python for research."]),
    ("In which language?", "Go", ["It is written in Go.", "go"], ["They go there.", "Go to the shop."]),
    ("On what does it run?", ".NET", ["It runs on .NET."], ["It is on the net."]),
]
SIGNS: list[Case] = [
    ("What is it?", "-5", ["-5", "It is \N{MINUS SIGN}5.", "minus 5", "negative five"], ["5", "It is 5.", "15"]),
    ("What is it?", "5", ["5", "from 3-5"], ["-5"]),
    ("When?", "1990-1995", ["from 1990 to 1995", "1990\N{EN DASH}1995"], ["1990 to 1996"]),
    ("How cold?", "-273.15 °C", ["-273.15 degrees Celsius"], ["273.15 °C"]),
]
UNITS: list[Case] = [
    ("How long is it?", "5 km", ["It is 5 kilometres long.", "5km", "5 km, or 3 miles"], ["5 miles", "5 m", "3 km"]),
    ("How long is it?", "5 m", ["5 metres"], ["5 km"]),
    ("How hot is it?", "20 °C", ["20 degrees Celsius"], ["20 °F"]),
    ("What did it cost?", "$5 million", ["5 million dollars", "$5,000,000"], ["£5 million", "€5 million"]),
    ("How heavy is it?", "5 kg", ["5kg", "5 kilos"], ["5 pounds"]),
    ("How long did it take?", "5 minutes", ["five minutes"], ["5 hours"]),
    ("What did he say?", '"1842"', ["1842"], ["1843"]),
]
DATES: list[Case] = [
    (
        "When?",
        "2019-05-03",
        ["May 3, 2019", "3 May 2019", "On the 3rd of May 2019.", "2019/05/03", "2019年5月3日", "In 2019."],
        ["2019-05-04", "June 3, 2019", "3 June 2019", "May 2018"],
    ),
    ("When?", "May 3, 2019", ["2019-05-03", "2019-05-03T10:00:00Z"], ["2019-03-05", "March 5, 2019"]),
    ("When?", "3 Sept. 2019", ["September 3, 2019", "Sep 3 2019"], ["October 3, 2019"]),
    ("What is its code?", "2019-13-45", ["2019-13-45"], ["2019-13-46"]),
]


def test_each_kind_of_gold_is_judged_as_a_reader_would() -> None:
    faults = [
        (question, gold, answer, wanted.value)
        for cases in (SCRIPTS, LETTERS, LANGUAGES, SIGNS, UNITS, DATES)
        for question, gold, right, wrong in cases
        for wanted, answers in ((Outcome.CORRECT, right), (Outcome.INCORRECT, wrong))
        for answer in answers
        if decide(question, gold, answer).outcome is not wanted
    ]
    assert faults == []


def test_an_answer_without_words_is_wrong_whatever_the_question() -> None:
    golds = ("yes", "no", "東京", "A", "5 km", "May 3, 2019")
    judged = {decide("Is it?", gold, answer).outcome for gold in golds for answer in ("", " ", "...")}
    assert judged == {Outcome.INCORRECT}
