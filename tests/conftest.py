"""Settings of every test and of every process that a test starts."""

from __future__ import annotations

import gc
import logging
import os
import signal
from collections.abc import Iterator

import hypothesis
import pytest
import structlog

# One thread per pool: on a busy machine, two threads that wait for each other in every small operation are many times
# slower than one. Set before anything else, because the libraries read these variables when they are imported.
for _pool in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_pool, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# A shell's background job ignores SIGINT, one of `nohup` SIGHUP, and so does what they start: then no test could
# interrupt a process with it.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

# No deadline per example: how long one takes depends on the load of the machine.
hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")

# Objects that imports create are never freed. Excluding them from garbage collection saves a seventh of the CPU time.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def logging_is_reset() -> Iterator[None]:
    """A test that runs a whole command configures the process's logging, which other tests must not see."""
    yield
    root = logging.getLogger()
    ours = [h for h in root.handlers if isinstance(h.formatter, structlog.stdlib.ProcessorFormatter)]
    if ours:
        for handler in ours:
            root.removeHandler(handler)
        root.setLevel(logging.WARNING)
        structlog.reset_defaults()
