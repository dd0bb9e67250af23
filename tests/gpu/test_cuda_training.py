"""On a GPU: the engine trains there what it trains on the CPU. Skipped, and said so, where there is none."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from sealkit.testing.tiny import make_tiny_model
from tests.unit.trainer.jobs import PROBE, job_spec
from trainer_svc.engine import Engine
from trainer_svc.packed import PackedModel

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")]


@pytest.mark.parametrize("arch", ["llama", "qwen2"])
def test_a_gpu_trains_what_a_cpu_trains(tmp_path, arch):
    folder = make_tiny_model(tmp_path / arch, arch, hidden=32, layers=2, vocab=320, context=64)
    trained = {}
    for device in ("cpu", "cuda"):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).to(device)
        engine = Engine(PackedModel(model.eval().requires_grad_(False)), PROBE)
        engine.start()
        try:
            jobs = [engine.submit(job_spec(seed=seed, batch_size=2, max_grad_norm=1.0)) for seed in range(3)]
            trained[device] = [job.result.result(timeout=100) for job in jobs]
        finally:
            engine.close()
    for cpu, cuda in zip(trained["cpu"], trained["cuda"], strict=True):
        assert cuda.losses == pytest.approx(cpu.losses, rel=1e-9)
        for path, (a, b) in cpu.weights.tensors.items():
            torch.testing.assert_close(cuda.weights.tensors[path], (a, b), rtol=1e-7, atol=1e-10)
