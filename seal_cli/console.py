"""Terminal output: results on stdout, everything else on stderr; a live view only on a terminal.

Nothing that is shown controls the terminal or breaks a line: control characters in names and messages are shown as
escapes (`\\x1b`). A character that stdout's encoding does not have is written in ASCII.
"""

from __future__ import annotations

import codecs
import io
import json
import sys
from datetime import datetime
from typing import Any

from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.markup import escape

from seal_cli.exit_codes import code_of
from sealkit.errors import SealError
from sealkit.report_page.labels import share as share
from sealkit.shown import NOT_SHOWN, visible

out = Console(highlight=False, soft_wrap=False, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)

_FIELDS_SHOWN = 20
_ASCII = {"–": "-", "—": "-", "…": "...", "→": "->", "·": "-", "×": "x", "θ": "theta", "⏎": "\\n", "“": '"', "”": '"'}


def write_any_encoding() -> None:
    """From now on no character stops an output: one that the stream's encoding lacks is written in ASCII."""

    def in_ascii(error: UnicodeError) -> tuple[str | bytes, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        lacking = error.object[error.start : error.end]
        return "".join(_ASCII.get(c) or c.encode("unicode_escape").decode() for c in lacking), error.end

    codecs.register_error("seal_ascii", in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="seal_ascii")


def at_terminal(console: Console = out) -> bool:
    """Whether a person sees the console. FORCE_COLOR and TTY_COMPATIBLE ask for colours, not for another format."""
    return bool(console.file.isatty())


def styled(text: str) -> str:
    """The text for rich's markup: shown as it is, control characters as escapes."""
    return escape(visible(text))


def show(text: str) -> None:
    """Prints a line of a result on stdout, whole and without colours."""
    out.print(visible(text), markup=False, soft_wrap=True)


def show_json(value: Any) -> None:
    """Prints a result (a pydantic value, a dataclass, or lists and tables of them) as one JSON document on stdout."""
    out.file.write(_json(value, indent=1) + "\n")


def show_json_line(value: Any) -> None:
    """Prints one value of a stream on stdout: JSON on one line, at once."""
    out.file.write(_json(value, indent=None) + "\n")
    out.file.flush()


def say(message: str) -> None:
    """Prints a progress line on stderr."""
    err.print(visible(message, keep="\n"), markup=False)


def fail(error: SealError) -> int:
    """Prints the error, how to fix it, and the faulty fields. Returns the exit code."""
    err.print(f"[bold red]error[/] {escape(visible(error.message, keep=chr(10)))}")
    # Fields that the message lists already are not printed again.
    if not all(path in error.message and description in error.message for path, description in error.fields):
        for path, description in error.fields[:_FIELDS_SHOWN]:
            err.print(f"  [bold]{styled(path)}[/]  {styled(description)}")
        if len(error.fields) > _FIELDS_SHOWN:
            err.print(f"  … and {len(error.fields) - _FIELDS_SHOWN} more")
    if error.retry_after is not None:
        err.print(f"  try again in {error.retry_after:.0f} s")
    return code_of(error)


def moment(time: datetime | None) -> str:
    """A time in this machine's time zone; empty for None."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S") if time else ""


def counted(number: int, noun: str) -> str:
    """`1 round`, `2 rounds`."""
    return f"{number} {noun}{'s' * (number != 1)}"


def _json(value: Any, *, indent: int | None) -> str:
    encoding = getattr(out.file, "encoding", None) or "ascii"
    ascii_only = codecs.lookup(encoding).name != "utf-8"
    text = json.dumps(to_jsonable_python(value, inf_nan_mode="null"), ensure_ascii=ascii_only, indent=indent)
    # json.dumps leaves DEL, C1 and bidirectional controls as they are.
    return NOT_SHOWN.sub(lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)
