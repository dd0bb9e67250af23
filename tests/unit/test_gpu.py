"""GPU metrics against a fake of NVML: what Prometheus reads, and that nothing NVML does breaks a scrape."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

from sealkit.observability import gpu
from sealkit.observability.metrics import GPU_GAUGES

LABELS = {"gpu": "0", "uuid": "GPU-0"}


class NVMLError(Exception):
    """As pynvml's."""


class FakeNvml(SimpleNamespace):
    """The part of pynvml that is used, over `count` GPUs; calls named in `refused` raise."""

    NVML_TEMPERATURE_GPU = 0

    def __init__(self, count: int = 1, refused: tuple[str, ...] = (), driver: bool = True) -> None:
        super().__init__(NVMLError=NVMLError, inits=0, driver=driver, refused=set(refused))
        answers: dict[str, Any] = {
            "nvmlDeviceGetCount": count,
            "nvmlDeviceGetHandleByIndex": lambda index: f"handle-{index}",
            "nvmlDeviceGetUUID": lambda handle: handle.replace("handle", "GPU"),
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=75, memory=3),
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=6 << 30, total=8 << 30, free=2 << 30),
            "nvmlDeviceGetPowerUsage": 250_500,
            "nvmlDeviceGetTemperature": 61,
        }
        for name, answer in answers.items():
            setattr(self, name, self._call(name, answer))

    def _call(self, name: str, answer: Any) -> Any:
        def call(*arguments: Any) -> Any:
            if name in self.refused:
                raise NVMLError(f"{name}: Not Supported")
            return answer(*arguments) if callable(answer) else answer

        return call

    def nvmlInit(self) -> None:
        self.inits += 1
        if not self.driver:
            raise NVMLError("NVML Shared Library Not Found")


def scraped(nvml: FakeNvml) -> dict[str, dict[str, float]]:
    """GPU index → metric → value, of one scrape."""
    registry = CollectorRegistry()
    registry.register(gpu.GpuMetrics(nvml))
    generate_latest(registry)
    found: dict[str, dict[str, float]] = {}
    for family in registry.collect():
        for sample in family.samples:
            found.setdefault(sample.labels["gpu"], {})[sample.name] = sample.value
    return found


@pytest.fixture
def fresh() -> Iterator[None]:
    """`watch_gpus` as in a new process; what it registers is taken away again."""
    gpu.watch_gpus.cache_clear()
    before = set(REGISTRY._collector_to_names)
    yield
    for collector in set(REGISTRY._collector_to_names) - before:
        REGISTRY.unregister(collector)
    gpu.watch_gpus.cache_clear()


def test_every_gpu_is_told_in_base_units() -> None:
    found = scraped(FakeNvml(count=2))
    assert set(found) == {"0", "1"}
    assert found["0"] == {
        "seal_gpu_utilisation_ratio": 0.75,
        "seal_gpu_memory_used_bytes": 6 << 30,
        "seal_gpu_memory_total_bytes": 8 << 30,
        "seal_gpu_power_watts": 250.5,
        "seal_gpu_temperature_celsius": 61,
    }
    assert set(found["1"]) == set(GPU_GAUGES)


@pytest.mark.parametrize(
    ("refused", "missing"),
    [
        ("nvmlDeviceGetUtilizationRates", {"seal_gpu_utilisation_ratio"}),
        ("nvmlDeviceGetMemoryInfo", {"seal_gpu_memory_used_bytes", "seal_gpu_memory_total_bytes"}),
        ("nvmlDeviceGetPowerUsage", {"seal_gpu_power_watts"}),
        ("nvmlDeviceGetTemperature", {"seal_gpu_temperature_celsius"}),
        ("nvmlDeviceGetHandleByIndex", set(GPU_GAUGES)),
        ("nvmlDeviceGetUUID", set(GPU_GAUGES)),
        ("nvmlDeviceGetCount", set(GPU_GAUGES)),
    ],
)
def test_what_nvml_refuses_costs_that_sample_alone(refused: str, missing: set[str]) -> None:
    assert set(scraped(FakeNvml(refused=(refused,))).get("0", {})) == set(GPU_GAUGES) - missing


def test_a_gpu_that_comes_back_is_told_again() -> None:
    nvml = FakeNvml(refused=("nvmlDeviceGetHandleByIndex",))
    registry = CollectorRegistry()
    registry.register(gpu.GpuMetrics(nvml))
    assert registry.get_sample_value("seal_gpu_power_watts", LABELS) is None
    nvml.refused.clear()
    assert registry.get_sample_value("seal_gpu_power_watts", LABELS) == 250.5


@pytest.mark.usefixtures("fresh")
def test_gpus_are_watched_once_however_many_models_a_process_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)  # type: ignore[arg-type]
    assert [gpu.watch_gpus(), gpu.watch_gpus()] == [True, True]
    assert nvml.inits == 1
    assert REGISTRY.get_sample_value("seal_gpu_temperature_celsius", LABELS) == 61


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("module", [FakeNvml(driver=False), None], ids=["no driver", "no package"])
def test_without_a_driver_nothing_is_told_and_nothing_raised(
    monkeypatch: pytest.MonkeyPatch, module: FakeNvml | None
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", module)  # type: ignore[arg-type]
    assert not gpu.watch_gpus()
    assert REGISTRY.get_sample_value("seal_gpu_temperature_celsius", LABELS) is None
