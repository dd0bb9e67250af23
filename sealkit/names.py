"""Resource names: formatted and parsed only here. Only the edges (RPC, command line, queue) parse names; inside, facts
are fields.

    runs/{run}                                  a run
    runs/{run}/rounds/{round}/trials/{trial}    a trial
    policies/{run}-{version}                    a version of a run's policy
    aliases/{alias}                             an alias
"""

from __future__ import annotations

import re

from sealkit.resources import Editor, TrialPhase
from sealkit.shown import NOT_SHOWN
from sealkit.types import digest_of

BASE_MODEL = "base"
"""Stands for the base model where a caller names an alias. An alias of this name is `aliases/base`."""
_PLAIN = re.compile(r"[A-Za-z0-9._-]{1,120}")


def check_name(name: str) -> str:
    """The name that a person gave. Raises ValueError if it has a character that is not shown."""
    if found := NOT_SHOWN.search(name):
        raise ValueError(f"{name!r} has the control character {found[0]!r}; use visible characters and spaces")
    return name


def run_name(run_id: str) -> str:
    return f"runs/{run_id}"


def round_name(run_id: str, round_index: int) -> str:
    return f"runs/{run_id}/rounds/{round_index}"


def trial_name(run_id: str, round_index: int, trial_id: str) -> str:
    return f"{round_name(run_id, round_index)}/trials/{trial_id}"


def policy_name(run_id: str, version: int) -> str:
    return f"policies/{run_id}-{version}"


def alias_name(alias: str) -> str:
    return f"aliases/{alias}"


def full_name(collection: str, name: str) -> str:
    """`runs/x` of `runs/x` and of `x`: users may leave the collection out."""
    return name if name.startswith(f"{collection}/") else f"{collection}/{name}"


def id_of(name: str) -> str:
    """The last part of a name: `x` of `runs/x`, of `aliases/x` and of `runs/r/rounds/0/trials/x`."""
    return name.rpartition("/")[2]


def run_id_of(name: str) -> str:
    """`r` of `runs/r` and of every name below it."""
    return name.split("/")[1]


def is_of_run(name: str) -> bool:
    """Whether the name is a run's, or below one."""
    return name.startswith("runs/")


def is_alias(name: str) -> bool:
    """Whether the name is an alias's."""
    return name.startswith("aliases/")


def parent_of_trials(name: str) -> tuple[str, int | None]:
    """Run id and round of `runs/{run}` (None: all rounds) or `runs/{run}/rounds/{round}`."""
    _, run_id, *of_round = name.split("/")
    return run_id, int(of_round[1]) if of_round else None


def trial_id(phase: TrialPhase, editor: str, context_id: str, index: int, version: int) -> str:
    """The last part of a trial's name. Context ids may be any text; names consist of letters, digits, `.`, `_` and `-`.

    `{context}-{index}` or `{context}-passage` in an E-step; `heldout-theta{version}-{context}-{index}` or
    `heldout-passage-{context}` in the scoring of a policy; with `by-{editor}-…` for another arm. Unique within a
    round."""
    context = context_id
    if not _PLAIN.fullmatch(context_id) or context_id.startswith(("heldout-", "by-")):
        context = f"{re.sub(r'[^A-Za-z0-9._-]+', '-', context_id)[:80]}-{digest_of(context_id)[:12]}"
    if editor not in (Editor.POLICY, Editor.PASSAGE_ONLY):
        # Names of editors may contain dashes too, so only the digest makes the pair unique.
        by = f"by-{re.sub(r'[^A-Za-z0-9._-]+', '-', editor)}-{context}-{digest_of(editor, context_id)[:8]}-{index}"
        return by if phase is TrialPhase.E_STEP else f"heldout-{by}"
    if phase is TrialPhase.E_STEP:
        return f"{context}-passage" if editor == Editor.PASSAGE_ONLY else f"{context}-{index}"
    if editor == Editor.PASSAGE_ONLY:
        return f"heldout-passage-{context}"
    return f"heldout-theta{version}-{context}-{index}"
