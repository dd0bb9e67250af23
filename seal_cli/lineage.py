"""The lineage of a version as a tree, and how two versions differ."""

from __future__ import annotations

from collections.abc import Sequence

from rich.tree import Tree

from seal_cli.console import share, show, styled
from sealkit.learning import ChangedAnswer, VersionDifference
from sealkit.reports import Lineage, LineageTrial
from sealkit.types import AdapterRef


def lineage_tree(found: Lineage) -> Tree:
    """alias → version → documents → trials → self-edit and the policy that wrote it; then the base model."""
    version = found.version
    root = Tree(styled(found.alias or version.name))
    of_version = root.add(styled(f"{version.name}  adapter {_digest(version.adapter)}; {version.gate_reason}"))
    for document in found.documents:
        numbers = f"accuracy {share(document.accuracy_before)} → {share(document.accuracy_after)} when it was learned"
        generated = ", GENERATED" if any(query.generated for query in document.queries) else ""
        node = of_version.add(
            styled(
                f"document {document.name}  sha256 {document.digest}; {len(document.queries)} questions{generated}; "
                f"{numbers}; by {document.run}"
            )
        )
        for trial in document.trials:
            _add(node, trial)
    of_version.add(styled(f"base model {found.base_model}"))
    return root


def _add(node: Tree, trial: LineageTrial) -> None:
    branch = node.add(styled(f"{trial.name}  adapter {_digest(trial.adapter)}"))
    branch.add(styled(f"self-edit sha256 {trial.self_edit}; teacher's answers sha256 {trial.teacher_answers}"))
    own = f"{trial.policy}, adapter {trial.policy_adapter.digest}" if trial.policy_adapter else "the base model"
    written = own if trial.editor in ("policy", "base") else f"the outside editor {trial.editor}"
    branch.add(styled(f"written by {written}"))


def _digest(adapter: AdapterRef | None) -> str:
    return adapter.digest if adapter else "none"


def print_difference(found: VersionDifference) -> None:
    """The two lists of questions."""
    show(f"from {found.first} to {found.second}")
    _print("learned", found.learned)
    _print("lost", found.lost)
    for word, names in (("lost", found.lost_of_suite), ("regained", found.regained_of_suite)):
        if names:
            show(f"{word} of the retention suite: {', '.join(names)}")


def _print(word: str, changed: Sequence[ChangedAnswer]) -> None:
    show(f"{word}: {len(changed)} questions")
    for one in changed:
        before = repr(one.before) if one.asked else "not asked"
        mark = " [GENERATED]" if one.generated else ""
        show(f"  {one.document}: {one.question}{mark}  {before} → {one.after!r} (gold: {one.gold!r})")
