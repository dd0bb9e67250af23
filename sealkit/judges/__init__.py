"""Judges: whether an answer is right. One file a judge; a new one is one file and one line in the registry below."""

from collections.abc import Callable

from sealkit.errors import UnknownJudge
from sealkit.judges.base import Answer, Judge, Judgement
from sealkit.judges.content import ContentJudge
from sealkit.judges.exact import ExactJudge
from sealkit.judges.grid import GridJudge

__all__ = ["Answer", "Judge", "Judgement", "judge_names", "load_judge"]

_JUDGES: dict[str, Callable[[], Judge]] = {"content": ContentJudge, "exact": ExactJudge, "grid": GridJudge}


def judge_names() -> list[str]:
    """Return the names `load_judge` knows, sorted."""
    return sorted(_JUDGES)


def load_judge(name: str) -> Judge:
    """Return the judge of that name.

    Raises:
        UnknownJudge: No judge has the name; the message lists those there are.
    """
    if name not in _JUDGES:
        raise UnknownJudge(
            f"no judge is named {name!r}; there are {', '.join(judge_names())}", metadata={"judge": name}
        )
    return _JUDGES[name]()
