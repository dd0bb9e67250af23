"""What decides over the last bit of a number beside the model: versions, processor, threads."""

from __future__ import annotations

import platform
from importlib.metadata import version

import torch


def build_facts(device: torch.device) -> dict[str, str]:
    """Of this process, as it is now. Two processes with the same facts, dtype and device give the same numbers, where
    their settings are the same."""
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
