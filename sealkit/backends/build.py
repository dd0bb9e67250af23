"""The facts, besides the model, that determine results to the last bit: versions, processor, threads."""

from __future__ import annotations

import platform
from importlib.metadata import version

import torch


def build_facts(device: torch.device) -> dict[str, str]:
    """The current facts of this process. Two processes with the same facts, dtype, device and settings compute the same
    numbers."""
    return {
        "suite": version("seal-suite"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "processor": _processor(device),
        "threads": str(torch.get_num_threads()),
    }


def _processor(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
