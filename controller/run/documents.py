"""Reads a run's documents: bytes to passages, and which documents the alias knows already."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

from controller.db.documents import KnownDocument, StoredDocument
from sealkit.config import DocumentsConfig
from sealkit.documents import Document, Splitting, read_documents, source_of_bytes
from sealkit.domains.base import Context, Examines
from sealkit.errors import Cancelled, SealError
from sealkit.resources import DocumentState
from sealkit.rpc.protocols import Trainer

_COUNT_SECONDS = 60.0


class _NotCounted(Exception):
    """The trainer did not count. Not a SealError, because that would be taken for a fault of the document."""

    def __init__(self, error: SealError) -> None:
        super().__init__()
        self.error = error


async def read(
    unread: Sequence[tuple[StoredDocument, bytes]], trainer: Trainer, config: DocumentsConfig
) -> dict[int, Document | str]:
    """By position, each document as it was read, or why it was not. The trainer counts tokens. Raises its errors."""
    loop, stopped = asyncio.get_running_loop(), threading.Event()

    def tokens(text: str) -> int:
        if stopped.is_set():
            raise _NotCounted(Cancelled("the documents are not read any further"))
        try:
            counted = asyncio.run_coroutine_threadsafe(trainer.count_tokens([text]), loop).result(_COUNT_SECONDS)
        except SealError as error:
            raise _NotCounted(error) from error
        return counted[0]

    def work() -> dict[int, Document | str]:
        sources = [source_of_bytes(document.name, raw) for document, raw in unread]
        found = read_documents(sources, tokens=tokens, splitting=Splitting(most=config.most, least=config.least))
        by_name: dict[str, Document | str] = {one.name: one for one in found.documents}
        by_name |= {one.name: f"{one.reason}: {one.message.removeprefix(f'{one.name}: ')}" for one in found.skipped}
        return {document.position: by_name[document.name] for document, _ in unread}

    try:
        return await asyncio.to_thread(work)
    except _NotCounted as error:
        raise error.error from error
    finally:
        stopped.set()


def rows_and_passages(
    unread: Sequence[tuple[StoredDocument, bytes]],
    found: dict[int, Document | str],
    known: Sequence[KnownDocument],
    domain: Examines,
    *,
    first_round: int,
) -> tuple[list[StoredDocument], list[Context]]:
    """The rows of the documents as they were read, and the passages to learn. Each document that says something new
    gets a round of its own, in the order in which they came."""
    rows: list[StoredDocument] = []
    contexts: dict[str, Context] = {}
    for stored, _ in unread:
        document = found[stored.position]
        if isinstance(document, str):
            rows.append(stored.changed(state=DocumentState.SKIPPED, reason=document))
            continue
        passages = [domain.of_passage(document.title, p.headings, p.text) for p in document.passages]
        new = {one.context_id: one.changed(document=stored.position) for one in passages}
        read = stored.changed(
            text_digest=document.text_digest,
            title=document.title,
            format=document.format,
            notices=document.notices,
            passages=len(new),
        )
        older = [one.document for one in known if one.document.name == stored.name]
        same = [one.document for one in known if stored.digest == one.document.digest or _same_words(one, read)]
        if same:
            rows.append(read.changed(state=DocumentState.SKIPPED, reason=_known_already(same[-1], stored)))
            continue
        contexts |= new
        round_index = first_round + sum(row.round is not None for row in rows)
        rows.append(read.changed(round=round_index, replaces=older[-1].digest if older else ""))
    return rows, list(contexts.values())


def _same_words(one: KnownDocument, read: StoredDocument) -> bool:
    return bool(read.text_digest) and one.document.text_digest == read.text_digest


def _known_already(same: StoredDocument, stored: StoredDocument) -> str:
    called = "" if same.name == stored.name else f", as {same.name}"
    return f"DUPLICATE_DOCUMENT: the alias knows it already{called}"
