"""Judges: whether an answer is right. One file a judge; a new one is one file and one line in the registry below."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from sealkit.errors import UnknownJudge
from sealkit.judges.base import Answer, Judge, Judgement, judge_any
from sealkit.judges.content import ContentJudge
from sealkit.judges.exact import ExactJudge
from sealkit.judges.grid import GridJudge

if TYPE_CHECKING:
    from sealkit.judges.settings import JudgeSettings

__all__ = ["Answer", "Judge", "Judgement", "check_judge", "close_judge", "judge_any", "judge_names", "load_judge"]


def _model(settings: JudgeSettings | None) -> Judge:
    # It needs an HTTP client and SQL, which callers that only list judges do not have.
    from sealkit.judges.model import ModelJudge
    from sealkit.judges.settings import JudgeSettings

    return ModelJudge(settings or JudgeSettings())


_JUDGES: dict[str, Callable[[JudgeSettings | None], Judge]] = {
    "content": lambda _: ContentJudge(),
    "exact": lambda _: ExactJudge(),
    "grid": lambda _: GridJudge(),
    "model": _model,
}


def judge_names() -> list[str]:
    """Return the names `load_judge` knows, sorted."""
    return sorted(_JUDGES)


def check_judge(name: str) -> None:
    """Check that a judge of that name exists.

    Raises:
        UnknownJudge: No judge has the name; the message lists the valid ones.
    """
    if name not in _JUDGES:
        raise UnknownJudge(
            f"unknown judge {name!r}; valid judges: {', '.join(judge_names())}", metadata={"judge": name}
        )


def load_judge(name: str, settings: JudgeSettings | None = None) -> Judge:
    """Return the judge of that name, configured by `settings`, or else by the environment.

    Raises:
        UnknownJudge: No judge has the name; the message lists the valid ones.
        InvalidConfig: A setting of the judge is missing.
    """
    check_judge(name)
    return _JUDGES[name](settings)


@runtime_checkable
class _Closable(Protocol):
    async def close(self) -> None: ...


async def close_judge(judge: Judge) -> None:
    """Close the judge's connections, if it has any."""
    if isinstance(judge, _Closable):
        await judge.close()
