"""A fixed A is that of the generalised eigenproblem; B is trained on it as by PEFT and a plain torch loop."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from sealkit.backends.lora import LoraWeights
from sealkit.errors import NonFiniteLoss
from sealkit.types import Anchoring, LoraConfig, Optimisation, Prompt, TrainingExample, TrainingSpec
from tests.unit.trainer.jobs import PROBE, job_spec, sequences
from tests.unit.trainer.plain import peft_model
from tests.unit.trainer.test_distillation import JOBS, over, plain_train, random_policy, with_teacher
from trainer_svc.directions import FLOOR, Directions, leading
from trainer_svc.encoding import Encoded
from trainer_svc.engine import Engine
from trainer_svc.job import JobSpec

TEMPLATE = (5, 9, 17)
"""What every prompt begins with."""


def templated(some: tuple[Encoded, ...]) -> tuple[Encoded, ...]:
    ahead = len(TEMPLATE)
    return tuple(Encoded((*TEMPLATE, *s.ids), tuple(label + ahead for label in s.labels), s.teacher) for s in some)


def contrasting(spec: JobSpec, anchoring: Anchoring) -> JobSpec:
    plain, *others = spec.sequences
    return dataclasses.replace(
        spec, sequences=(plain, *templated(tuple(others))), anchors=templated(sequences(6, 61)), anchoring=anchoring
    )


SPECS = {
    "plain text": contrasting(job_spec(5, 31, epochs=2), Anchoring(contrast=True)),
    "distilled, with anchors": contrasting(
        with_teacher(job_spec(4, 32, batch_size=2, weight_decay=0.1), top_k=5),
        Anchoring(contrast=True, per_step=2, weight=0.5),
    ),
    "accumulated and clipped": contrasting(
        job_spec(5, 33, gradient_accumulation_steps=2, max_grad_norm=0.2), Anchoring(contrast=True, per_step=1)
    ),
}


def inputs(model, some: tuple[Encoded, ...], path: str, skip: list[int]) -> np.ndarray:
    """The inputs of a linear behind the first `skip` tokens of each sequence."""
    rows = []
    hook = model.get_submodule(path).register_forward_pre_hook(lambda _, seen: rows.append(seen[0][0]))
    with torch.no_grad():
        for sequence in some:
            model(input_ids=torch.tensor([sequence.ids]))
    hook.remove()
    return torch.cat([row[first:] for row, first in zip(rows, skip, strict=True)]).double().numpy()


def expected(folder, spec: JobSpec, policy: LoraWeights | None, linears) -> LoraWeights:
    """A by the dense generalised eigenproblem, on transformers' own model, PEFT's policy on it."""
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    model = peft_model(folder, policy, torch.float64) if policy else base
    tensors = {}
    for path, linear in linears.items():
        at = f"base_model.model.{path}" if policy else path
        anchors = inputs(model, spec.anchors, at, [len(TEMPLATE)] * len(spec.anchors))
        own = inputs(model, spec.sequences, at, [1] + [len(TEMPLATE)] * (len(spec.sequences) - 1))
        width = anchors.shape[1]
        r = anchors.T @ anchors / len(anchors)
        r += FLOOR * np.trace(r) / width * np.eye(width)
        values, vectors = np.linalg.eig(np.linalg.solve(r, own.T @ own))
        a = vectors.real.T[np.argsort(-values.real)[: spec.lora.rank]]
        usual = np.sqrt(np.median((own**2).sum(1)) / (3 * width))
        a *= usual / np.sqrt(((own @ a.T) ** 2).mean(0))[:, None]
        b = torch.zeros(linear.out_features, spec.lora.rank, dtype=torch.float64)
        tensors[path] = (torch.tensor(a), b)
    return LoraWeights(spec.lora, tensors)


@pytest.mark.parametrize("over_policy", [False, True])
def test_it_is_the_plain_loop_with_a_fixed_a_alone_and_in_company(folders, models, over_policy):
    """float64; the rows of A have no sign of their own, so the products B A are compared: 1e-7."""
    policy = random_policy(models["llama"]) if over_policy else None
    wanted, missed = {}, []
    for name, spec in SPECS.items():
        linears = models["llama"].find_targets(spec.lora.target_modules)
        start = expected(folders["llama"], spec, policy, linears)
        wanted[name] = plain_train(folders["llama"], spec, start, policy)
    for slots in (1, 4):
        engine = Engine(models["llama"], PROBE, max_jobs=slots, step_tokens=120)
        jobs = {name: engine.submit(over(spec, policy)) for name, spec in SPECS.items()}
        others = [engine.submit(over(JOBS["anchors"], policy)), engine.submit(job_spec(3, 20))]
        engine.start()
        for name, job in jobs.items():
            ours = job.result.result(timeout=60).weights.tensors
            for path, (a, b) in wanted[name].items():
                mine, want = ours[path][1] @ ours[path][0], b @ a
                apart = float((mine - want).norm() / want.norm())
                missed += [(slots, name, path, apart)] if apart > 1e-7 else []
        for job in others:
            job.result.result(timeout=60)
        engine.close()
    assert missed == []


def test_what_was_read_is_counted_and_anchors_are_read_once(models):
    spec = SPECS["plain text"]
    directions = Directions(models["llama"])
    linears = models["llama"].find_targets(spec.lora.target_modules)
    asked = spec.lora, linears, spec.sequences, spec.anchors
    own, anchors = (sum(len(s.ids) for s in some) for some in (spec.sequences, spec.anchors))
    first, read = directions.weights(*asked, step_tokens=30)
    again, more = directions.weights(*asked)
    assert (read, more) == (own + anchors, own)
    for path in first.tensors:
        torch.testing.assert_close(first.tensors[path][0], again.tensors[path][0], rtol=1e-9, atol=1e-12)


def test_a_text_shorter_than_the_rank_has_rows_of_zero(models):
    lora = LoraConfig(rank=12, alpha=12, target_modules=("q_proj",))
    linears = models["llama"].find_targets(lora.target_modules)
    short = (Encoded((*TEMPLATE, 40, 41, 42), (3, 4, 5)),)
    weights, _ = Directions(models["llama"]).weights(lora, linears, short, templated(sequences(6, 61)))
    for a, _ in weights.tensors.values():
        assert [bool(row.any()) for row in a] == [True] * 3 + [False] * 9


def test_one_anchor_or_a_sequence_of_nothing_but_the_template_has_rows(models):
    """What a sequence is read on is never empty."""
    lora = LoraConfig(rank=4, alpha=4, target_modules=("q_proj",))
    linears = models["llama"].find_targets(lora.target_modules)
    bare = Encoded(TEMPLATE, (2,))
    (one,) = templated(sequences(1, 61))
    for own, anchors in (((one,), (bare,)), ((bare,), (one, *templated(sequences(3, 62)))), ((one,), (one,))):
        weights, _ = Directions(models["llama"]).weights(lora, linears, own, anchors)
        assert all(bool(a.isfinite().all() and a.any()) for a, _ in weights.tensors.values())


def test_inputs_that_are_not_finite_fail_the_job_and_not_the_engine(models, make_engine):
    spec = SPECS["plain text"]
    policy = random_policy(models["llama"])
    huge = LoraWeights(policy.config, {path: (a * 1e200, b * 1e200) for path, (a, b) in policy.tensors.items()})
    engine = make_engine(models["llama"])
    engine.start()
    with pytest.raises(NonFiniteLoss):
        engine.submit(over(spec, huge)).result.result(timeout=60)
    engine.submit(spec).result.result(timeout=60)


def test_leading_directions_of_wide_inputs_hold_what_the_exact_ones_hold():
    """Inputs whose spectrum decays as a language model's do, 600 wide."""
    draw = torch.Generator().manual_seed(1)
    mix = torch.linalg.qr(torch.randn(600, 600, generator=draw, dtype=torch.float64))[0]
    rows = torch.randn(900, 600, generator=draw, dtype=torch.float64) * torch.arange(1, 601).pow(-0.7) @ mix
    values, vectors = leading(rows, 32)
    exact = torch.linalg.eigvalsh(rows.T @ rows / len(rows)).flip(0)[:32]
    assert float(values.sum() / exact.sum()) > 0.995
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(32, dtype=torch.float64), rtol=0, atol=1e-9)


def test_a_contrast_without_anchors_is_refused():
    example = TrainingExample(text="text", prompt=Prompt(user="asked"))
    with pytest.raises(ValidationError, match="give anchors"):
        TrainingSpec(
            examples=(example,), lora=LoraConfig(), optimisation=Optimisation(), anchoring=Anchoring(contrast=True)
        )
