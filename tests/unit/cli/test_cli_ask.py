"""`seal ask`: what is asked, and how the answer is shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from seal_cli.main import app
from sealkit.answers import Answer, Gathered
from sealkit.errors import Unavailable
from sealkit.resources import AnswerAbout, AnswerBegun, AnswerDocument, AnswerUpdate
from sealkit.types import AnswerDelta, AnswerEnd, FinishReason, Prompt, Sampling, Usage


class FakeClient:
    """An alias answers with its name and the question; `broken` breaks it after the first word."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Prompt, Sampling]] = []
        self.finish = FinishReason.STOP
        self.broken = ""
        self.about: tuple[AnswerDocument, ...] = ()

    def __enter__(self) -> FakeClient:
        return self

    def __exit__(self, *_: object) -> None: ...

    def stream_answer(
        self, alias: str, prompt: Prompt, sampling: Sampling, *, documents: bool = False
    ) -> Iterator[AnswerUpdate]:
        self.asked.append((alias, prompt, sampling))
        yield AnswerBegun(alias=alias, policy="policies/p" if alias else "")
        for text in (alias or "base", " says", "\n\x1b[31m", prompt.user):
            yield AnswerDelta(text=text)
            if self.broken == alias:
                raise Unavailable("evaluator died")
        if documents:
            yield AnswerAbout(documents=self.about)
        yield AnswerEnd(finish_reason=self.finish, usage=Usage(completion_tokens=4))

    def answer(self, *asked: Any, **options: Any) -> Answer:
        gathered = Gathered()
        for update in self.stream_answer(*asked, **options):
            gathered.add(update)
        return gathered.answer


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    made = FakeClient()
    made.broken = "nobody"
    monkeypatch.setattr("seal_cli.commands.ask.connect", lambda *_: made)
    return made


def ask(*words: str, **options: Any) -> Result:
    return CliRunner().invoke(app, ["ask", *words], **options)


def test_the_answer_is_all_of_stdout(client: FakeClient) -> None:
    done = ask("notes", "Which river?", "--system", "Be brief.", "--max-tokens", "9", "--temperature", "0.5")
    assert (done.exit_code, done.stdout) == (0, "aliases/notes says\n\\x1b[31mWhich river?\n")
    ((alias, prompt, sampling),) = client.asked
    assert (alias, prompt.system) == ("aliases/notes", "Be brief.")
    assert (sampling.max_tokens, sampling.temperature) == (9, 0.5)


def test_with_document_it_says_what_the_answer_is_about(client: FakeClient) -> None:
    assert ask("notes", "Which river?", "--document").stdout.endswith("river?\nabout: no document of the alias\n")
    client.about = (
        AnswerDocument(name="a.md", digest="d", share=0.75),
        AnswerDocument(name="b", digest="e", share=0.5),
    )
    assert "about: a.md (0.75 of the words), b (0.50 of the words)\n" in ask("notes", "Which?", "--document").stdout
    assert "about: a.md" in ask("notes", "Which?", "--document", "--compare").stdout
    shown = json.loads(ask("notes", "Which?", "--document", "--json").stdout)
    assert [one["name"] for one in shown["about"]["documents"]] == ["a.md", "b"]
    assert "about" not in ask("notes", "Which?").stdout


def test_base_is_the_base_model_and_the_question_may_come_on_standard_input(client: FakeClient) -> None:
    done = ask("base", input="Which\nriver?")
    assert done.stdout.startswith("base says")
    assert client.asked[0][:2] == ("", Prompt(user="Which\nriver?"))
    assert ask("notes", input=" \n").exit_code == 2
    assert ask("notes", "half \udc80").exit_code == 2


def test_a_comparison_has_both_under_their_names(client: FakeClient) -> None:
    lines = ask("notes", "Which river?", "--compare").stdout.splitlines()
    assert lines == [
        "# aliases/notes (policies/p)", "aliases/notes says", "\\x1b[31mWhich river?", "# base model", "base says",
        "\\x1b[31mWhich river?",
    ]  # fmt: skip
    found = json.loads(ask("notes", "Which river?", "--compare", "--json").stdout)
    assert (found["answer"]["begun"]["policy"], found["base"]["text"]) == (
        "policies/p", "base says\n\x1b[31mWhich river?",
    )  # fmt: skip
    assert len({prompt for _, prompt, _ in client.asked}) == 1


@pytest.mark.parametrize("words", [(), ("--compare",)])
def test_an_answer_that_breaks_is_an_error(client: FakeClient, words: tuple[str, ...]) -> None:
    client.broken = "aliases/notes"
    done = ask("notes", "Which river?", *words)
    assert done.exit_code not in (0, 2)
    assert "evaluator died" in done.stderr


def test_an_answer_that_was_cut_off_says_so_on_stderr(client: FakeClient) -> None:
    client.finish = FinishReason.LENGTH
    done = ask("notes", "Which river?", "--max-tokens", "4")
    assert "--max-tokens (4)" in done.stderr
    assert "max-tokens" not in done.stdout
