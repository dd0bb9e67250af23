"""Terminal output: results on stdout, everything else on stderr; colours only on a terminal."""

from __future__ import annotations

from datetime import datetime

from rich.console import Console
from rich.markup import escape

from seal_cli.exit_codes import code_of
from sealkit.errors import SealError

out = Console(highlight=False, soft_wrap=False)
err = Console(stderr=True, highlight=False, soft_wrap=True)

_FIELDS_SHOWN = 20


def say(message: str) -> None:
    """Prints a progress line on stderr."""
    err.print(escape(message))


def fail(error: SealError) -> int:
    """Prints the error, how to fix it, and the faulty fields. Returns the exit code."""
    err.print(f"[bold red]error[/] {escape(error.message)}")
    # Fields that the message lists already are not printed again.
    if not all(path in error.message and description in error.message for path, description in error.fields):
        for path, description in error.fields[:_FIELDS_SHOWN]:
            err.print(f"  [bold]{escape(path)}[/]  {escape(description)}")
        if len(error.fields) > _FIELDS_SHOWN:
            err.print(f"  … and {len(error.fields) - _FIELDS_SHOWN} more")
    if error.retry_after is not None:
        err.print(f"  try again in {error.retry_after:.0f} s")
    return code_of(error)


def duration(seconds: float) -> str:
    """`48 s`, `3:05`, `1:02:03`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def moment(time: datetime | None) -> str:
    """A time in this machine's time zone; empty for None."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S") if time else ""


def share(value: float | None) -> str:
    """An accuracy or the like, in [0, 1]; a dash where it was not measured."""
    return "–" if value is None else f"{value:.2f}"
