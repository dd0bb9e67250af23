"""Which documents of an alias an answer is about: those whose passages share the words of the question or the answer.

The words are weighed as for routes (`sealkit.routing`). The adapter is not asked, so this is a hint where to look, not
where the answer is from.
"""

from __future__ import annotations

from collections.abc import Sequence

from controller.db.documents import StoredDocument
from sealkit.resources import AnswerDocument
from sealkit.routing import PassageIndex


def documents_about(
    texts: Sequence[str], passages: Sequence[tuple[StoredDocument, Sequence[str]]]
) -> tuple[AnswerDocument, ...]:
    """The documents that one of `texts`, the question and the answer, is about; the best first. `passages`: the texts
    that each document was learned from."""
    of_passage = [document for document, of_document in passages for _ in of_document]
    index = PassageIndex([text for _, of_document in passages for text in of_document])
    best: dict[StoredDocument, float] = {}
    for asked in texts:
        for document, share in zip(of_passage, index.shares(asked), strict=True):
            best[document] = max(best.get(document, 0.0), share)
    found = [AnswerDocument(name=one.name, digest=one.digest, share=share) for one, share in best.items() if share]
    return tuple(sorted(found, key=lambda one: -one.share))
