"""`seal ask`: a question to an alias, or to the base model."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from seal_cli.options import DEFAULT_DATA, Address, AsJson, Data, connect
from sealkit import limits
from sealkit.errors import InvalidInput
from sealkit.names import BASE_MODEL, full_name


def register(app: typer.Typer) -> None:
    """Adds `seal ask` to the application."""
    app.command("ask")(ask)


def ask(
    name: Annotated[str, typer.Argument(help="An alias, or `base` for the base model.")],
    question: Annotated[str, typer.Argument(help="The question. Default, and for `-`: standard input.")] = "-",
    compare: Annotated[bool, typer.Option("--compare", help="Show the base model's answer beside it.")] = False,
    document: Annotated[
        bool, typer.Option("--document", help="Say which documents of the alias the answer is about, by their words.")
    ] = False,
    system: Annotated[str, typer.Option(help="A system message.")] = "",
    max_tokens: Annotated[
        int, typer.Option(min=1, max=limits.COMPLETION_TOKENS, help="Most tokens of the answer.")
    ] = 512,
    temperature: Annotated[float, typer.Option(min=0, max=10, help="0: the most likely answer.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="With a temperature: which answer is drawn.")] = 0,
    as_json: AsJson = False,
    address: Address = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """Ask a question. The answer is shown as it is written; Ctrl-C ends it.

    An alias answers as the policy that it points to now. With --json the whole answer is one document, with who gave
    it, the reasoning if the model reasons, and the usage.
    """
    from seal_cli.asking import print_answer, print_comparison
    from seal_cli.console import show_json
    from sealkit.types import Prompt, Sampling

    text = _read(question)
    alias = "" if name == BASE_MODEL else full_name("aliases", name)
    message = _checked(system, "the system message")
    asked = Prompt(user=text, system=message), Sampling(temperature=temperature, max_tokens=max_tokens, seed=seed)
    with connect(address, data) as client:
        if compare and alias:
            print_comparison(client, alias, *asked, documents=document, as_json=as_json)
        elif as_json:
            show_json(client.answer(alias, *asked, documents=document))
        else:
            print_answer(client.stream_answer(alias, *asked, documents=document), max_tokens)


def _read(question: str) -> str:
    if question != "-":
        text = question
    elif sys.stdin.isatty():
        raise InvalidInput("what is the question? Give it after the name, or on standard input")
    else:
        text = sys.stdin.read()
    if not text.strip():
        raise InvalidInput("the question is empty")
    return _checked(text, "the question")


def _checked(text: str, what: str) -> str:
    """A text of the command line or of standard input, which may have bytes that are no characters."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{what} is not UTF-8 text") from error
    return text
