"""The last part of a trial's name. Context ids may be anything; names hold letters, digits, `.`, `_` and `-`."""

from __future__ import annotations

import re

from sealkit.resources import Editor, TrialPhase
from sealkit.types import digest_of

_PLAIN = re.compile(r"[A-Za-z0-9._-]{1,120}")


def trial_id(phase: TrialPhase, editor: str, context_id: str, index: int, version: int) -> str:
    """`{context}-{index}` or `{context}-passage` in an E-step; `heldout-theta{version}-{context}-{index}` or
    `heldout-passage-{context}` in the scoring of a policy; with `by-{editor}-…` where another arm wrote. Two trials of
    a round never share one."""
    context = context_id
    if not _PLAIN.fullmatch(context_id) or context_id.startswith(("heldout-", "by-")):
        context = f"{re.sub(r'[^A-Za-z0-9._-]+', '-', context_id)[:80]}-{digest_of(context_id)[:12]}"
    if editor not in (Editor.POLICY, Editor.PASSAGE_ONLY):
        # Names of editors may hold dashes as well: only the digest keeps two pairs of names apart.
        by = f"by-{re.sub(r'[^A-Za-z0-9._-]+', '-', editor)}-{context}-{digest_of(editor, context_id)[:8]}-{index}"
        return by if phase is TrialPhase.E_STEP else f"heldout-{by}"
    if phase is TrialPhase.E_STEP:
        return f"{context}-passage" if editor == Editor.PASSAGE_ONLY else f"{context}-{index}"
    if editor == Editor.PASSAGE_ONLY:
        return f"heldout-passage-{context}"
    return f"heldout-theta{version}-{context}-{index}"
