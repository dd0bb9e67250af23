"""The exit codes of `seal`; docs/exit_codes.md is their page, and a test compares the two."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from seal_cli.interrupts import Interrupted
from sealkit.errors import InvalidInput, NotFound, SealError


class ExitCode(IntEnum):
    """What a command's end means. The meaning is that of the page."""

    DONE = 0
    FAILED = 1
    BAD_INPUT = 2
    HANGUP = 129
    INTERRUPTED = 130
    TERMINATED = 143


MEANINGS: Mapping[ExitCode, str] = {
    ExitCode.DONE: "done; or the answer is yes",
    ExitCode.FAILED: "it failed, or something it needs does not answer or refuses; or the answer is no",
    ExitCode.BAD_INPUT: "the input is wrong: an option, a config, a dataset, a name that does not exist",
    ExitCode.HANGUP: "the terminal was closed (SIGHUP)",
    ExitCode.INTERRUPTED: "Ctrl-C (SIGINT)",
    ExitCode.TERMINATED: "SIGTERM",
}

RUN_ENDED = "the run ended as failed, paused or cancelled"
"""Of the commands that follow a run."""
ANSWERS: Mapping[str, str] = {
    "status": "a service of the stack is not ready, or no stack runs",
    "up": "with `--foreground` also: a service died, and the rest was stopped",
    "down": "a process is not known to have ended; it is named and stays in `stack.json`",
    "run": RUN_ENDED,
    "adapt": RUN_ENDED,
    "learn": RUN_ENDED,
    "alias forget": RUN_ENDED,
    "runs watch": RUN_ENDED,
    "arc filter": RUN_ENDED,
    "trials rerun": "the rerun differs from the recorded trial",
    "adapters verify": "an adapter is corrupt",
    "doctor": "a check is bad",
    "health": "the service is not ready",
}
"""Commands for which FAILED is also an answer, and which."""


def code_of(error: BaseException) -> ExitCode:
    """The exit code of a command that ends with this error."""
    if isinstance(error, Interrupted):
        return ExitCode(128 + error.number)
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    bad_input = isinstance(error, SealError) and isinstance(error, InvalidInput | NotFound)
    return ExitCode.BAD_INPUT if bad_input else ExitCode.FAILED
