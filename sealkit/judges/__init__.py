"""Judges: whether an answer is right. One file a judge; a new one is one file and one line in the registry below."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from sealkit.errors import UnknownJudge
from sealkit.judges.base import Answer, Judge, Judgement
from sealkit.judges.content import ContentJudge
from sealkit.judges.exact import ExactJudge
from sealkit.judges.grid import GridJudge

if TYPE_CHECKING:
    from sealkit.judges.settings import JudgeSettings

__all__ = ["Answer", "Judge", "Judgement", "check_judge", "close_judge", "judge_names", "load_judge"]


def _model(settings: JudgeSettings | None) -> Judge:
    # It needs an HTTP client and SQL, which those who only name judges do without.
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
    """Make sure that there is a judge of that name.

    Raises:
        UnknownJudge: No judge has the name; the message lists those there are.
    """
    if name not in _JUDGES:
        raise UnknownJudge(
            f"no judge is named {name!r}; there are {', '.join(judge_names())}", metadata={"judge": name}
        )


def load_judge(name: str, settings: JudgeSettings | None = None) -> Judge:
    """Return the judge of that name, made by `settings`, else by the environment.

    Raises:
        UnknownJudge: No judge has the name; the message lists those there are.
        InvalidConfig: The judge lacks a setting.
    """
    check_judge(name)
    return _JUDGES[name](settings)


@runtime_checkable
class _Closable(Protocol):
    async def close(self) -> None: ...


async def close_judge(judge: Judge) -> None:
    """End what the judge holds open; most hold nothing."""
    if isinstance(judge, _Closable):
        await judge.close()
