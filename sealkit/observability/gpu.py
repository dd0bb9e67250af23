"""The GPUs of this machine, for Prometheus, read from NVIDIA's management library (NVML) at each scrape.

For processes with a model. Without an NVIDIA driver or the package nvidia-ml-py nothing is exported. A value that NVML
does not provide (utilisation of MIG slices, power of some boards) is left out; the scrape never fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib import import_module
from typing import Any

import structlog
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import REGISTRY, Collector

from sealkit.observability.metrics import GPU_GAUGES

log = structlog.get_logger(__name__)


@cache
def watch_gpus() -> bool:
    """Registers the GPU metrics; returns whether NVML is available. Only the first call has an effect."""
    try:
        nvml = import_module("pynvml")
    except ImportError:
        return False
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:  # usually: no driver
        log.debug("no GPU metrics", message=str(error))
        return False
    REGISTRY.register(GpuMetrics(nvml))
    return True


class GpuMetrics(Collector):
    """Utilisation, memory, power and temperature of every GPU that NVML shows; `nvml` is the module `pynvml`."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml

    def collect(self) -> Iterable[Metric]:
        """The families of `GPU_GAUGES`; those without values are empty."""
        families = {name: GaugeMetricFamily(name, text, labels=("gpu", "uuid")) for name, text in GPU_GAUGES.items()}
        for index in range(self._asked(self._nvml.nvmlDeviceGetCount) or 0):
            handle = self._asked(self._nvml.nvmlDeviceGetHandleByIndex, index)
            uuid = self._asked(self._nvml.nvmlDeviceGetUUID, handle) if handle is not None else None
            if uuid is None:
                continue
            for name, value in self._values(handle):
                families[name].add_metric((str(index), uuid), value)
        return families.values()

    def describe(self) -> Iterable[Metric]:
        """Empty, so that registering does not query the GPUs."""
        return ()

    def _values(self, handle: Any) -> Iterator[tuple[str, float]]:
        nvml = self._nvml
        if (share := self._asked(nvml.nvmlDeviceGetUtilizationRates, handle)) is not None:
            yield "seal_gpu_utilisation_ratio", share.gpu / 100
        if (memory := self._asked(nvml.nvmlDeviceGetMemoryInfo, handle)) is not None:
            yield "seal_gpu_memory_used_bytes", memory.used
            yield "seal_gpu_memory_total_bytes", memory.total
        if (milliwatts := self._asked(nvml.nvmlDeviceGetPowerUsage, handle)) is not None:
            yield "seal_gpu_power_watts", milliwatts / 1000
        if (celsius := self._asked(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)) is not None:
            yield "seal_gpu_temperature_celsius", celsius

    def _asked(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """NVML's answer; None on an NVML error."""
        try:
            return call(*arguments)
        except self._nvml.NVMLError as error:
            log.debug("NVML error", call=getattr(call, "__name__", str(call)), message=str(error))
            return None
