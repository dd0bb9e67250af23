"""What a job gets in company is what a plain PEFT loop gives it alone."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from sealkit.backends.lora import LoraWeights
from sealkit.types import LoraConfig
from tests.unit.trainer.jobs import job_spec, packed, sequences
from tests.unit.trainer.plain import batch_loss, peft_model, relative, train, trained_weights
from trainer_svc.adapter import Training, initial_weights
from trainer_svc.linear import IDLE, Applied, Step
from trainer_svc.rows import Rows
from trainer_svc.step import Part

# Each differs from the others in all that a job may choose; lengths, masks and counts differ by seed.
JOBS = {
    "plain": {"count": 5, "seed": 1},
    "rank": {"count": 3, "seed": 2, "lora": {"rank": 2, "alpha": 3, "target_modules": ("v_proj", "q_proj")}},
    "linear": {"count": 4, "seed": 3, "schedule": "linear", "warmup_steps": 2, "epochs": 3, "learning_rate": 2e-3},
    "cosine": {"count": 6, "seed": 4, "schedule": "cosine", "warmup_steps": 1, "batch_size": 3, "max_grad_norm": 0.5},
    "accumulate": {"count": 7, "seed": 5, "batch_size": 2, "gradient_accumulation_steps": 3, "weight_decay": 0.1},
    "long": {"count": 3, "seed": 6, "epochs": 7, "lora": {"rank": 3, "target_modules": ("down_proj",)}},
    "kl": {"count": 3, "seed": 7, "kl_beta": 0.3, "batch_size": 2, "lora": {"target_modules": ("o_proj", "up_proj")}},
}


def specs():
    return {name: job_spec(**options) for name, options in JOBS.items()}


def plain_result(folder, model, spec):
    start = spec.start or initial_weights(spec.lora, model.find_targets(spec.lora.target_modules), spec.seed)
    reference = peft_model(folder, start, torch.float64)
    train(reference, spec)
    return trained_weights(reference, start)


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def arch(request):
    return request.param


@pytest.fixture(scope="module")
def plain(arch, folders, models):
    return {name: plain_result(folders[arch], models[arch], spec) for name, spec in specs().items()}


@pytest.mark.parametrize("name", JOBS)
def test_alone_it_is_the_plain_loop(name, arch, models, make_engine, plain):
    engine = make_engine(models[arch])
    engine.start()
    trained = engine.submit(specs()[name]).result.result(timeout=60)
    assert relative(trained.weights.tensors, plain[name]) < 1e-9


def test_in_company_it_is_the_plain_loop(arch, models, make_engine, plain):
    """Three slots for seven unlike jobs, and too few tokens for all three at once: they join and leave midway."""
    engine = make_engine(models[arch], max_jobs=3, step_tokens=30)
    jobs = {name: engine.submit(spec) for name, spec in specs().items()}
    engine.start()
    for name, job in jobs.items():
        trained = job.result.result(timeout=60)
        assert relative(trained.weights.tensors, plain[name]) < 1e-9, name
        assert trained.train_tokens == job.spec.optimisation.epochs * sum(len(s.ids) for s in job.spec.sequences)


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("gate_proj", "down_proj"), ("layers.1.mlp.up_proj",)])
def test_jobs_of_one_shape_side_by_side_are_plain_loops(targets, folders, models, make_engine):
    """Their adapters are stacked, their sequences padded to a common width: nobody may see that."""
    alike = [
        job_spec(4, seed, lora={"target_modules": targets, "alpha": 2 + seed % 2}, learning_rate=1e-3 * (1 + seed))
        for seed in range(5)
    ]
    engine = make_engine(models["qwen2"])
    jobs = [engine.submit(spec) for spec in alike]
    engine.start()
    for job in jobs:
        trained = job.result.result(timeout=60).weights.tensors
        assert relative(trained, plain_result(folders["qwen2"], models["qwen2"], job.spec)) < 1e-9


def test_one_other_token_shows(models, make_engine, folders):
    """The negative control of the checks above."""
    spec = job_spec(**JOBS["plain"])
    first = spec.sequences[0]
    other = dataclasses.replace(first, ids=(first.ids[0] + 1, *first.ids[1:]))
    changed = dataclasses.replace(spec, sequences=(other, *spec.sequences[1:]))
    engine = make_engine(models["llama"])
    engine.start()
    trained = engine.submit(changed).result.result(timeout=60)
    assert relative(trained.weights.tensors, plain_result(folders["llama"], models["llama"], spec)) > 1e-6


def test_float32_gradients_of_a_step(folders):
    """One step of unlike jobs; gradients by PEFT and autograd."""
    model = packed(folders["qwen2"], torch.float32)
    adapters, parts, theirs = [], [], []
    for seed, rank in enumerate((2, 5, 9)):
        config = LoraConfig(rank=rank, alpha=4)
        weights = initial_weights(config, model.find_targets(config.target_modules), seed)
        draw = torch.Generator().manual_seed(seed)
        weights = LoraWeights(
            config, {p: (a, 0.3 * torch.randn(b.shape, generator=draw)) for p, (a, b) in weights.tensors.items()}
        )
        batch = sequences(seed + 1, seed)
        reference = peft_model(folders["qwen2"], weights, torch.float32)
        batch_loss(reference, list(batch)).backward()
        layers = {p: reference.get_submodule(f"base_model.model.{p}") for p in weights.tensors}
        theirs.append(
            {p: (m.lora_A["default"].weight.grad, m.lora_B["default"].weight.grad) for p, m in layers.items()}
        )
        adapters.append(model.trainable(weights, job_spec().optimisation))
        parts.append(Part(batch, adapters[-1]))
    model.forward_backward(parts)
    for adapter, expected in zip(adapters, theirs, strict=True):
        assert relative(adapter.gradients(), expected) < 1e-5


def test_dropout_is_a_jobs_own(models, make_engine):
    """The same masks alone and in company, other masks by seed, and dropout does something."""
    spec = job_spec(4, 1, lora={"dropout": 0.3}, batch_size=2)
    without = job_spec(4, 1, batch_size=2)
    alone, company = make_engine(models["llama"]), make_engine(models["llama"], step_tokens=40)
    alone.start()
    expected = alone.submit(spec).result.result(timeout=60).weights.tensors
    neighbours = [company.submit(job_spec(3, seed, lora={"dropout": 0.5})) for seed in (8, 9)]
    job, bare = company.submit(spec), company.submit(without)
    company.start()
    assert relative(job.result.result(timeout=60).weights.tensors, expected) < 1e-9
    assert relative(bare.result.result(timeout=60).weights.tensors, expected) > 1e-3
    for neighbour in neighbours:
        neighbour.result.result(timeout=60)


def test_dropout_gradient_is_autograds(models):
    """Through the layer's own backward pass against autograd on the written-out formula, with a recorded mask."""
    model = models["llama"]
    config = LoraConfig(rank=3, alpha=6, dropout=0.4, target_modules=("q_proj",))
    path = "model.layers.0.self_attn.q_proj"
    linear = model.find_targets((path,))[path]
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(shape, generator=draw, dtype=torch.float64) for shape in ((3, 32), (32, 3)))
    x = torch.randn(5, 32, generator=draw, dtype=torch.float64, requires_grad=True)
    adapter = model.trainable(LoraWeights(config, {path: (a, b)}), job_spec().optimisation)
    training = Training.of([adapter])
    trial = Applied(Rows(1, 1, 3), training.stack, training.gradients, 0.4, torch.Generator().manual_seed(3))
    linear.group.begin(Step((trial,), x.dtype))
    y = linear(x)
    linear.group.begin(IDLE)
    y.square().sum().backward()
    training.end()
    keep = (torch.rand(3, 32, generator=torch.Generator().manual_seed(3)) >= 0.4) / 0.6
    x2, a2, b2 = (t.detach().clone().requires_grad_() for t in (x, a, b))
    y2 = torch.nn.functional.linear(x2, linear.weight)
    y2 = y2 + torch.nn.functional.pad((x2[1:4] * keep) @ a2.t() @ b2.t() * 2, (0, 0, 1, 1))
    y2.square().sum().backward()
    assert torch.allclose(y, y2)
    assert torch.allclose(x.grad, x2.grad)
    assert torch.allclose(adapter.gradients()[path][0], a2.grad)
    assert torch.allclose(adapter.gradients()[path][1], b2.grad)


def test_weights_do_not_depend_on_the_other_targets(models):
    model = models["llama"]
    few = initial_weights(LoraConfig(rank=4), model.find_targets(("v_proj",)), 5)
    many = initial_weights(LoraConfig(rank=4), model.find_targets(("q_proj", "v_proj", "up_proj")), 5)
    assert all(torch.equal(few.tensors[path][0], many.tensors[path][0]) for path in few.tensors)
    other = initial_weights(LoraConfig(rank=4), model.find_targets(("v_proj",)), 6)
    assert not any(torch.equal(few.tensors[path][0], other.tensors[path][0]) for path in few.tensors)


def test_the_base_is_untouched(models, make_engine):
    model = models["qwen2"]
    before = copy.deepcopy(model.model.state_dict())
    engine = make_engine(model)
    engine.start()
    engine.submit(job_spec()).result.result(timeout=60)
    after = model.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in model.model.parameters())


def test_bfloat16_learns_along_the_same_curve(folders, models, make_engine):
    spec = job_spec(4, 1, epochs=6)
    curves = []
    for model in (models["llama"], packed(folders["llama"], torch.bfloat16)):
        engine = make_engine(model)
        engine.start()
        curves.append(torch.tensor(engine.submit(spec).result.result(timeout=60).losses))
    exact, coarse = curves
    assert exact[-4:].mean() < 0.8 * exact[:4].mean()
    assert ((coarse - exact).abs() < 0.03 * exact[0]).all()
