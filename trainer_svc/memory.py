"""Peak memory of training, and an allocator setting."""

from __future__ import annotations

import ctypes
import resource
import sys

import torch

# Parameters of glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def peak_memory_bytes(device: torch.device) -> int:
    """Peak since the process started: of the tensors on a GPU, or of the whole process on a CPU, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts KiB, macOS bytes


def keep_freed_memory() -> None:
    """Makes glibc keep memory that a step frees, because after a return to the kernel each page costs a page fault
    again. Affects the whole process; no effect with another C library."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return
    libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the highest that glibc accepts
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(_M_ARENA_MAX, 1)  # heaps of other threads are 64 MB each and always trimmed
