"""`make demo` under Ctrl-C, on a tiny model: nothing is left, and what ran before stays."""

import os
import signal
import subprocess

import pytest

from seal_cli.stack import process
from seal_cli.stack.layout import Layout
from tests.integration.stack.support import ROOT, RunningStack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

LONG = [
    "--set", "dataset.limit=38", "--set", "editor.sampling.max_tokens=16", "--set", "inner_loop.optimisation.epochs=1",
]  # fmt: skip


def interrupted_demo(environment: dict[str, str], number: signal.Signals = signal.SIGINT) -> tuple[int, str]:
    """Starts the demo as a terminal does, presses Ctrl-C once trials come in, or sends another signal to the script
    alone; exit code and all it said."""
    demo = subprocess.Popen(
        [str(ROOT / "scripts" / "demo.sh"), *LONG],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert demo.stdout is not None
    said = ""
    for line in demo.stdout:
        said += line
        if "trial 1/" in line:
            if number is signal.SIGINT:
                os.killpg(demo.pid, number)
            else:
                demo.send_signal(number)
            break
    said += demo.communicate(timeout=100)[0]
    return demo.returncode, said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_cancels_the_run_and_stops_the_stack(
    number: signal.Signals, environment: dict[str, str], layout: Layout
) -> None:
    code, said = interrupted_demo(environment, number)
    assert (code, "is cancelled" in said, "the stack is stopped" in said) == (128 + number, True, True), said
    assert layout.read_state() is None


def test_a_closed_terminal_cancels_the_run_too_and_a_stack_that_ran_before_stays(stack: RunningStack) -> None:
    before = stack.layout.read_state()
    for number in (signal.SIGINT, signal.SIGHUP):
        assert interrupted_demo(stack.environment, number)[0] == 128 + number
        assert before is not None
        assert stack.layout.read_state() == before
        assert all(process.is_running(record) for record in before.services)
        assert stack.seal("runs", "list").stdout.split("\t")[2] == "cancelled"
