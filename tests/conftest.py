"""What holds for every test and every process that a test starts."""

from __future__ import annotations

import gc
import os

import hypothesis

# A test is small, and the machine may be shared: a pool of two threads of which one has to wait for a core is up to a
# hundred times slower than one thread. Here, since the libraries read it when they are imported.
for _pool in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_pool, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")

# torch and the tests themselves are a million objects, which never go: the collector need not look at them again and
# again.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()
