"""How much memory training took, and keeping it between steps."""

from __future__ import annotations

import ctypes
import resource
import sys

import torch

# Parameters of glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def peak_memory_bytes(device: torch.device) -> int:
    """High-water mark since the process began: of the tensors on a GPU, or of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts KiB, macOS bytes


def keep_freed_memory() -> None:
    """Has glibc keep what a step frees for the next: given back to the kernel, each page of each tensor costs a fault
    again. Of the whole process; does nothing on another C library."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return
    libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the highest that glibc takes
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(_M_ARENA_MAX, 1)  # the heaps of other threads are 64 MB each and always trimmed
