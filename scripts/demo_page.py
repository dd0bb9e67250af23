"""The closing page of `make demo`, at most 80 columns wide.

    python -m scripts.demo_page answers LEARNED.json >ANSWERS.json    while the stack that learned runs
    python -m scripts.demo_page show LEARNED.json ANSWERS.json ROUNDS.json

LEARNED.json and ROUNDS.json are what `seal adapt --json` and `seal run --json` printed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import TypeAdapter

from seal_cli.options import DEFAULT_DATA, connect
from sealkit.client import SealClient
from sealkit.report_page.labels import duration
from sealkit.reports import Estimate, RunReport
from sealkit.shown import visible
from sealkit.types import Outcome, Value

WIDTH = 80
_BAR = 40
"""Columns of an accuracy of 1."""


class Asked(Value):
    """A question on a learned text, with the answers of the base model and of the last version."""

    question: str
    gold: str
    before: str
    after: str
    right_before: bool
    right_after: bool


def answers(client: SealClient, learned: RunReport) -> list[Asked]:
    """The questions on all texts that the run of this report committed."""
    first, last = (client.get_policy(learned.policies[at].name) for at in (0, -1))
    before, after = ({verdict.query_id: verdict for verdict in policy.verdicts} for policy in (first, last))
    return [
        Asked(
            question=query.question,
            gold=query.gold,
            before=before[query.query_id].answer,
            after=after[query.query_id].answer,
            right_before=before[query.query_id].outcome is Outcome.CORRECT,
            right_after=after[query.query_id].outcome is Outcome.CORRECT,
        )
        for name in last.trials
        for query in client.get_trial_material(name).queries
    ]


def page(learned: RunReport, asked: Sequence[Asked], rounds: RunReport) -> Iterator[str]:
    """The lines of the page."""
    yield _heading("1  Learning a text", learned)
    yield from _texts_learned(learned, asked)
    yield ""
    yield _heading("2  A round of ReST^EM, on ARC tasks in small", rounds)
    yield from _round(rounds)
    yield ""
    yield "─" * WIDTH
    yield from _wrapped(_conclusion(asked, rounds))
    yield from _wrapped(
        "Ask it yourself: seal up, then seal ask demo 'What are the flat boats on Lake Ombrel made of?' --compare. "
        "Results of ours, and what they can show: docs/results/demo.md. Longer runs: docs/results/study.md. "
        "With your own texts: README.md."
    )


def _texts_learned(learned: RunReport, asked: Sequence[Asked]) -> Iterator[str]:
    tried = sum(learned.trial_counts.values())
    if not asked:
        yield from _wrapped(f"No text was committed after {tried} trials: {learned.verdict}")
        return
    for one in asked:
        yield from _wrapped(f"{one.question} ({one.gold})")
        for label, text, right in (("before", one.before, one.right_before), ("after", one.after, one.right_after)):
            answer = " ".join(text.split())
            yield from _wrapped(f"    {'✓' if right else '✗'} {label:6}  {answer}", indent=14)
    right_before, right_after = (sum(one.right_before for one in asked), sum(one.right_after for one in asked))
    yield ""
    yield from _wrapped(
        f"{right_before} of {len(asked)} questions were answered right before and {right_after} after, without the "
        f"text in the prompt. {tried} trials; the best self-edit on each text was chosen by these same questions."
    )
    if retention := learned.policies[-1].retention:
        yield from _wrapped(
            f"Forgotten: {len(retention.lost_query_ids)} of {retention.kept} general questions that the model had "
            f"answered right, {_interval(retention.forgetting, retention.forgetting_low, retention.forgetting_high)}. "
            + _with_the_adapter(learned.trial_forgetting)
        )


def _with_the_adapter(forgetting: Estimate | None) -> str:
    """What it would be if every prompt got the adapter, not only those that are about the text."""
    return f"With the adapter on every prompt: {_of(forgetting)}, mean of the trials." if forgetting else ""


def _round(rounds: RunReport) -> Iterator[str]:
    scored = [(number, point.accuracy) for number, point in enumerate(rounds.curve) if point.accuracy]
    for number, accuracy in scored:
        yield f"θ_{number}  {_of(accuracy)}  {'█' * round(_BAR * accuracy.mean)}"
    for _, accuracy in scored[:1]:
        yield from _wrapped(
            f"Accuracy on {accuracy.n} held-out tasks that no policy was trained on, mean of its self-edits, with 95 % "
            f"intervals. θ_0 wrote the self-edits of the round; {rounds.kept} of them solved their task where nothing "
            "else did, and the next policy is trained on those."
        )
    yield ""
    yield from _wrapped(rounds.verdict)


def _conclusion(asked: Sequence[Asked], rounds: RunReport) -> str:
    learned = sum(one.right_after for one in asked) > sum(one.right_before for one in asked)
    paid = rounds.rl_gain is not None and rounds.rl_gain.low > 0
    texts = "learned from the text" if learned else "learned nothing from the text"
    policy = "writes better self-edits after the round" if paid else "does not measurably write better self-edits"
    begin = "It worked" if learned and paid else "Both parts ran, but not both had the intended effect"
    return f"{begin}: the model {texts}, and the policy {policy}."


def _of(accuracy: Estimate) -> str:
    return _interval(accuracy.mean, accuracy.low, accuracy.high)


def _interval(mean: float, low: float, high: float) -> str:
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def _heading(title: str, report: RunReport) -> str:
    left, right = f"── {title} ", f" {duration(report.wall_seconds)} ──"
    return left + "─" * (WIDTH - len(left) - len(right)) + right


def _wrapped(text: str, indent: int = 0) -> list[str]:
    return textwrap.wrap(visible(text), WIDTH, subsequent_indent=" " * indent, break_on_hyphens=False)


def _report(file: Path) -> RunReport:
    return RunReport.model_validate(json.loads(file.read_text(encoding="utf-8"))["report"])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, files in {"answers": ("learned",), "show": ("learned", "answers", "rounds")}.items():
        command = commands.add_parser(name)
        for file in files:
            command.add_argument(file, type=Path)
    options = parser.parse_args(arguments)
    asked = TypeAdapter(list[Asked])
    if options.command == "answers":
        with connect("", Path(os.environ.get("SEAL_DATA", DEFAULT_DATA))) as client:
            sys.stdout.buffer.write(asked.dump_json(answers(client, _report(options.learned))))
    else:
        texts = asked.validate_json(options.answers.read_bytes())
        print("\n".join(page(_report(options.learned), texts, _report(options.rounds))))


if __name__ == "__main__":
    main()
