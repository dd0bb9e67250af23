"""Readers of pure Python, fuzzed where coverage leads: `python -m tests.security.guided NAME SECONDS`. `make fuzz`
installs atheris and runs each for a while. A text that breaks one is printed, and the folder that holds it named."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["sealkit.judges", "sealkit.domains", "sealkit.schema"]):
    from sealkit.config import InnerLoopConfig
    from sealkit.domains.arc.grids import MalformedGrid, from_text
    from sealkit.domains.arc.toolkit import read_toolkit
    from sealkit.domains.base import Context, Rejected
    from sealkit.domains.knowledge import KnowledgeDomain
    from sealkit.errors import InvalidInput
    from sealkit.judges.content import decide
    from sealkit.judges.exact import normalised
    from sealkit.schema import read_schema


def self_edits(text: str) -> None:
    """What a model wrote, in both domains."""
    payload = {"title": "t", "context": "c", "questions": [{"question": "q", "answer": "a"}]}
    context = Context(context_id="c", split="train", payload=payload)
    with contextlib.suppress(Rejected):
        KnowledgeDomain({}, InnerLoopConfig()).compile(context, text, 0)
    with contextlib.suppress(Rejected):
        KnowledgeDomain({"style": "questions"}, InnerLoopConfig()).study(context, text)
    with contextlib.suppress(Rejected):
        read_toolkit(text)


def answers(text: str) -> None:
    """What a model answered, and what the dataset calls right."""
    question, _, rest = text.partition("\n")
    gold, _, answer = rest.partition("\n")
    decide(question, gold, answer)
    normalised(answer)
    with contextlib.suppress(MalformedGrid):
        from_text(text)
    with contextlib.suppress(InvalidInput):
        read_schema(text)


TARGETS: dict[str, Callable[[str], None]] = {"self_edits": self_edits, "answers": answers}
SEEDS = (
    "Question 1: Which?\nAnswer: that\n---\nMore.", '{"data_generation": {}, "training": {"learning_rate": 0.1}}',
    "Is it red or blue?\nred\nIt is twenty-one million 3rd.", "[[1, 2], [3, 4]]", "1 2\n3 4", '{"type": "object"}',
)  # fmt: skip


def main(name: str, seconds: int) -> None:
    target = TARGETS[name]
    corpus = Path(tempfile.mkdtemp(prefix="seal-fuzz-"))
    for number, seed in enumerate(SEEDS):
        (corpus / str(number)).write_text(seed)

    def one(data: bytes) -> None:
        target(data.decode("utf-8", "ignore"))

    words = [
        sys.argv[0],
        f"-max_total_time={seconds}",
        "-max_len=4000",
        "-timeout=10",
        "-rss_limit_mb=2048",
        str(corpus),
    ]
    atheris.Setup([*words, f"-artifact_prefix={corpus}/", str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
