"""Adapters over a frozen policy, adapters that go on from a parent, adapters that others load."""

from __future__ import annotations

import peft
import torch
from transformers import AutoModelForCausalLM

from sealkit.backends.lora import LoraWeights, dump_adapter, load_adapter
from sealkit.types import LoraConfig
from tests.unit.trainer.jobs import job_spec, sequences
from tests.unit.trainer.plain import peft_model, relative, train, trained_weights
from trainer_svc.adapter import initial_weights
from trainer_svc.job import Frozen
from trainer_svc.step import Part


def random_weights(model, seed: int, **options) -> LoraWeights:
    config = LoraConfig(**{"rank": 3, "alpha": 6, "target_modules": ("q_proj", "down_proj"), **options})
    fresh = initial_weights(config, model.find_targets(config.target_modules), seed)
    draw = torch.Generator().manual_seed(seed)
    tensors = {path: (a, 0.3 * torch.randn(b.shape, generator=draw)) for path, (a, b) in fresh.tensors.items()}
    return LoraWeights(config, tensors)


def write(folder, weights: LoraWeights):
    folder.mkdir()
    for name, data in dump_adapter(weights, "tiny").items():
        (folder / name).write_bytes(data)
    return folder


def peft_logits(model, sequence) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([sequence.ids])).logits[0, [label - 1 for label in sequence.labels]]


def test_training_over_a_policy_is_training_with_both_in_peft(folders, models, make_engine):
    model = models["qwen2"]
    policy = random_weights(model, 11)
    spec = job_spec(4, 1, policy=Frozen("p", policy), lora={"rank": 2, "target_modules": ("q_proj", "v_proj")})
    start = initial_weights(spec.lora, model.find_targets(spec.lora.target_modules), spec.seed)
    reference = peft_model(folders["qwen2"], start, torch.float64, policy=policy)
    train(reference, spec)
    engine = make_engine(model)
    job = engine.submit(spec)
    others = [
        engine.submit(job_spec(3, 2)),
        engine.submit(job_spec(3, 3, policy=Frozen("o", random_weights(model, 5)))),
    ]
    engine.start()
    trained = job.result.result(timeout=60)
    assert relative(trained.weights.tensors, trained_weights(reference, start)) < 1e-9
    for other in others:
        other.result.result(timeout=60)


def test_peft_loads_what_was_saved(folders, models, make_engine, tmp_path):
    engine = make_engine(models["llama"])
    engine.start()
    trained = engine.submit(job_spec(3, 1, lora={"rank": 5, "alpha": 7.5})).result.result(timeout=60)
    folder = write(tmp_path / "adapter", trained.weights)
    base = AutoModelForCausalLM.from_pretrained(folders["llama"], dtype=torch.float64)
    theirs = peft.PeftModel.from_pretrained(base, folder, autocast_adapter_dtype=False)
    (sequence,) = sequences(1, 42)
    again = load_adapter({file.name: file.read_bytes() for file in folder.iterdir()})
    adapter = models["llama"].trainable(again, job_spec().optimisation)
    ours = models["llama"].logits([Part((sequence,), adapter)])
    assert torch.allclose(ours, peft_logits(theirs, sequence), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(ours, models["llama"].logits([Part((sequence,))]), rtol=1e-3, atol=1e-3)


def test_policy_and_trial_together_are_both_in_peft(folders, models, tmp_path):
    model = models["qwen2"]
    policy, trial = random_weights(model, 1), random_weights(model, 2, rank=5, target_modules=("q_proj", "up_proj"))
    base = AutoModelForCausalLM.from_pretrained(folders["qwen2"], dtype=torch.float64)
    both = peft.PeftModel.from_pretrained(base, write(tmp_path / "p", policy), "p", autocast_adapter_dtype=False)
    both.load_adapter(write(tmp_path / "t", trial), "t", autocast_adapter_dtype=False)
    both.base_model.set_adapter(["p", "t"])
    (sequence,) = sequences(1, 7)
    adapter = model.trainable(trial, job_spec().optimisation)
    ours = model.logits([Part((sequence,), adapter, model.frozen(policy))])
    assert torch.allclose(ours, peft_logits(both, sequence), rtol=1e-9, atol=1e-9)


def test_a_job_goes_on_from_given_weights(folders, models, make_engine):
    model = models["llama"]
    parent = random_weights(model, 4)
    spec = job_spec(3, 1, start=parent, lora=parent.config.model_dump())
    reference = peft_model(folders["llama"], parent, torch.float64)
    train(reference, spec)
    engine = make_engine(model)
    engine.start()
    trained = engine.submit(spec).result.result(timeout=60)
    assert relative(trained.weights.tensors, trained_weights(reference, parent)) < 1e-9
