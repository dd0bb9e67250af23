"""Shows answers as they are written: one, or two beside each other."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from seal_cli.console import at_terminal, out, say, share, show, show_json
from sealkit.answers import Gathered
from sealkit.errors import SealError
from sealkit.resources import AnswerAbout
from sealkit.shown import visible
from sealkit.types import AnswerDelta, AnswerEnd, FinishReason, Prompt, Sampling

if TYPE_CHECKING:
    from sealkit.client import SealClient
    from sealkit.resources import AnswerUpdate

_KEEP = "\n\t"
_REFRESH_SECONDS = 0.1


def print_answer(updates: Iterable[AnswerUpdate], max_tokens: int) -> None:
    """Writes an answer to stdout piece by piece, without what controls a terminal."""
    reasons, about = False, None
    try:
        for update in updates:
            if isinstance(update, AnswerDelta):
                reasons = reasons or bool(update.reasoning)
                out.file.write(visible(update.text, keep=_KEEP))
                out.file.flush()
            elif isinstance(update, AnswerAbout):
                about = update
            elif isinstance(update, AnswerEnd) and update.finish_reason is FinishReason.LENGTH:
                where = "the model's context or --max-tokens"
                say(f"\ncut off after {update.usage.completion_tokens} tokens: {where} ({max_tokens}) ended it")
    finally:
        out.file.write("\n")
    if reasons:
        say("the model reasoned before it answered; --json shows that too")
    if about is not None:
        show(_documents(about))


def _documents(about: AnswerAbout) -> str:
    """A line on what an answer is about."""
    listed = ", ".join(f"{visible(one.name)} ({share(one.share)} of the words)" for one in about.documents)
    return f"about: {listed or 'no document of the alias'}"


class _Reader(threading.Thread):
    """Reads one answer."""

    def __init__(
        self,
        client: SealClient,
        alias: str,
        prompt: Prompt,
        sampling: Sampling,
        changed: threading.Event,
        *,
        documents: bool,
    ) -> None:
        super().__init__(daemon=True)
        self.alias = alias
        self.gathered = Gathered()
        self.error: SealError | None = None
        self._updates = client.stream_answer(alias, prompt, sampling, documents=documents)
        self._changed = changed

    def run(self) -> None:
        try:
            for update in self._updates:
                self.gathered.add(update)
                self._changed.set()
        except SealError as error:
            self.error = error
        finally:
            self._changed.set()

    @property
    def title(self) -> str:
        policy = self.gathered.begun.policy
        return f"{self.alias} ({policy})" if policy else self.alias or "base model"


def print_comparison(
    client: SealClient, alias: str, prompt: Prompt, sampling: Sampling, *, documents: bool, as_json: bool
) -> None:
    """The answers of an alias and of the base model to one prompt, written at the same time; with `documents`, also
    what the first is about. Raises the first error of the two."""
    changed = threading.Event()
    both = [
        _Reader(client, name, prompt, sampling, changed, documents=documents and bool(name)) for name in (alias, "")
    ]
    for reader in both:
        reader.start()
    if at_terminal() and not as_json:
        with Live(console=out, auto_refresh=False, transient=False) as live:
            while any(reader.is_alive() for reader in both):
                changed.wait(_REFRESH_SECONDS)
                changed.clear()
                live.update(_beside(both), refresh=True)
            live.update(_beside(both), refresh=True)
    for reader in both:
        reader.join()
    for reader in both:
        if reader.error is not None:
            raise reader.error
    ours, base = (reader.gathered.answer for reader in both)
    if as_json:
        show_json({"answer": ours, "base": base})
    elif not at_terminal():
        for reader in both:
            show(f"# {reader.title}")
            out.file.write(visible(reader.gathered.text, keep=_KEEP).rstrip("\n") + "\n")
    if ours.about is not None and not as_json:
        show(_documents(ours.about))


def _beside(both: Sequence[_Reader]) -> Group:
    table = Table.grid(padding=(0, 2), expand=True)
    for _ in both:
        table.add_column(ratio=1, overflow="fold")
    table.add_row(*(Text(visible(reader.title), style="bold") for reader in both))
    table.add_row(*(Text(visible(reader.gathered.text, keep=_KEEP)) for reader in both))
    return Group(table)
