"""Soft targets and anchors are what a plain torch loop makes of them, alone and batched with other jobs."""

from __future__ import annotations

import dataclasses
import math
import random

import pytest
import torch
from torch import nn
from transformers import get_scheduler
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from sealkit.backends.lora import LoraWeights
from sealkit.types import Anchoring, Distillation, LoraConfig
from tests.unit.trainer.jobs import PROBE, job_spec, packed, sequences
from tests.unit.trainer.plain import SCHEDULES, peft_model, relative, trained_weights
from trainer_svc.adapter import initial_weights
from trainer_svc.encoding import Encoded
from trainer_svc.engine import Engine
from trainer_svc.job import Frozen, JobSpec
from trainer_svc.loss import States
from trainer_svc.plan import anchors_of_step, generator_of
from trainer_svc.step import Part, Term
from trainer_svc.teacher import Ask, Teacher, size_of


def distilled(count: int, seed: int) -> tuple[Encoded, ...]:
    """Texts behind a short prompt, and behind a longer one for the teacher."""
    draw = random.Random(1000 + seed)
    made = []
    for plain in sequences(count, seed):
        first = plain.labels[0]
        prompt = tuple(draw.randrange(320) for _ in range(draw.randint(4, 9)))
        behind = plain.ids[first:]
        labels = tuple(len(prompt) + i for i in range(len(behind)))
        made.append(dataclasses.replace(plain, teacher=Encoded((*prompt, *behind), labels)))
    return tuple(made)


def with_teacher(
    spec: JobSpec, mixed: bool = False, anchors: int = 0, anchoring: Anchoring | None = None, **weights
) -> JobSpec:
    some = distilled(len(spec.sequences), spec.seed)
    if mixed:
        some = tuple(s if i % 2 else dataclasses.replace(s, teacher=None) for i, s in enumerate(some))
    return dataclasses.replace(
        spec,
        sequences=some,
        distillation=Distillation(**weights),
        anchors=sequences(anchors, spec.seed + 50) if anchors else (),
        anchoring=anchoring or Anchoring(),
    )


POLICY_SEED = 77
JOBS = {
    "whole distribution": with_teacher(job_spec(5, 1, epochs=3), top_k=0),
    "top k": with_teacher(job_spec(4, 2, epochs=2, batch_size=2), top_k=5),
    "one token": with_teacher(job_spec(3, 3), top_k=1),
    "all tokens": with_teacher(job_spec(3, 4), top_k=4096),
    "both terms": with_teacher(job_spec(4, 5, batch_size=4), top_k=7, kl_weight=0.7, ce_weight=0.4),
    "cross-entropy alone": with_teacher(job_spec(3, 6), kl_weight=0.0, ce_weight=1.0),
    "beside plain text": with_teacher(job_spec(5, 7, batch_size=5, epochs=3), mixed=True, top_k=6),
    "beside plain text with KL": with_teacher(job_spec(5, 8, batch_size=3, kl_beta=0.2), mixed=True, top_k=0),
    "anchors": with_teacher(
        job_spec(6, 9, batch_size=2, gradient_accumulation_steps=2, epochs=2),
        mixed=True, anchors=3, anchoring=Anchoring(per_step=2, weight=0.6), top_k=8,
    ),
    "anchors beside plain text": with_teacher(
        job_spec(4, 10, epochs=2, max_grad_norm=0.5), anchors=5, anchoring=Anchoring(per_step=7, weight=1.5), top_k=0
    ),
}  # fmt: skip


def plain_kl(q: torch.Tensor, p: torch.Tensor, k: int) -> torch.Tensor:
    """KL(p || q) of rows of logits, over the k likeliest tokens of p and one bucket for the rest; 0: all tokens."""
    log_q, log_p = q.log_softmax(-1), p.log_softmax(-1)
    if not k or k >= p.shape[-1]:
        return (log_p.exp() * (log_p - log_q)).sum(-1)
    top = log_p.topk(k, dim=-1).indices
    rest = torch.ones_like(log_p, dtype=torch.bool).scatter(-1, top, False)
    sides = []
    for log in (log_p, log_q):
        left = log.masked_fill(~rest, -math.inf).logsumexp(-1, keepdim=True)
        sides.append(torch.cat([log.gather(-1, top), left], dim=-1))
    return (sides[0].exp() * (sides[0] - sides[1])).sum(-1)


def rows(model, sequence: Encoded) -> torch.Tensor:
    logits = model(input_ids=torch.tensor([sequence.ids])).logits[0]
    return logits[[label - 1 for label in sequence.labels]]


def plain_train(folder, spec: JobSpec, start: LoraWeights, policy: LoraWeights | None) -> dict:
    """PEFT, autograd and AdamW; one sequence at a time, unpadded."""
    model = peft_model(folder, start, torch.float64, policy)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    below = peft_model(folder, policy, torch.float64) if policy else base
    o, d = spec.optimisation, spec.distillation
    if spec.anchoring.contrast:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and "lora_A" not in name)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=o.learning_rate, weight_decay=o.weight_decay, foreach=False)
    per_epoch = math.ceil(math.ceil(len(spec.sequences) / o.batch_size) / o.gradient_accumulation_steps)
    schedule = get_scheduler(SCHEDULES[o.schedule], optimiser, o.warmup_steps, o.epochs * per_epoch)

    def study(sequence: Encoded) -> torch.Tensor:
        z = rows(model, sequence)
        targets = torch.tensor([sequence.ids[label] for label in sequence.labels])
        entropy = nn.functional.cross_entropy(z, targets, reduction="none")
        ce, kl, k = (d.ce_weight, d.kl_weight, d.top_k) if sequence.teacher else (1.0, o.kl_beta, 0)
        if not kl:
            return (ce * entropy).sum()
        with torch.no_grad():
            said = rows(below, sequence.teacher or sequence)
        return (ce * entropy + kl * plain_kl(z, said, k)).sum()

    def held(sequence: Encoded) -> torch.Tensor:
        with torch.no_grad():
            said = rows(base, sequence)
        return plain_kl(rows(model, sequence), said, d.top_k).sum()

    done = 0
    for epoch in range(o.epochs):
        order = torch.randperm(len(spec.sequences), generator=generator_of(spec.seed, "order", epoch)).tolist()
        batches = [order[i : i + o.batch_size] for i in range(0, len(order), o.batch_size)]
        for first in range(0, len(batches), o.gradient_accumulation_steps):
            step = batches[first : first + o.gradient_accumulation_steps]
            optimiser.zero_grad()
            for batch in step:
                labels = sum(len(spec.sequences[i].labels) for i in batch)
                (sum(study(spec.sequences[i]) for i in batch) / labels / len(step)).backward()
            chosen = (
                anchors_of_step(len(spec.anchors), spec.anchoring.per_step, spec.seed, done) if spec.anchors else ()
            )
            if chosen:
                labels = sum(len(spec.anchors[i].labels) for i in chosen)
                (spec.anchoring.weight * sum(held(spec.anchors[i]) for i in chosen) / labels).backward()
            if o.max_grad_norm:
                nn.utils.clip_grad_norm_(parameters, o.max_grad_norm)
            optimiser.step()
            schedule.step()
            done += 1
    return trained_weights(model, start)


def random_policy(model) -> LoraWeights:
    config = LoraConfig(rank=3, alpha=6, target_modules=("q_proj", "down_proj"))
    weights = initial_weights(config, model.find_targets(config.target_modules), POLICY_SEED)
    draw = torch.Generator().manual_seed(POLICY_SEED)
    moved = {path: (a, 0.2 * torch.randn(b.shape, generator=draw)) for path, (a, b) in weights.tensors.items()}
    return LoraWeights(config, moved)


def over(spec: JobSpec, policy: LoraWeights | None) -> JobSpec:
    return dataclasses.replace(spec, policy=Frozen("p" * 64, policy) if policy else None)


@pytest.fixture(scope="module", params=["on the base", "over a policy"])
def policy(request, models):
    return random_policy(models["llama"]) if request.param == "over a policy" else None


@pytest.fixture(scope="module")
def plain(folders, models, policy):
    def result(spec):
        start = initial_weights(spec.lora, models["llama"].find_targets(spec.lora.target_modules), spec.seed)
        return plain_train(folders["llama"], spec, start, policy)

    return {name: result(spec) for name, spec in JOBS.items()}


def test_it_is_the_plain_loop_alone_and_batched_with_others(models, policy, plain):
    """Distilled jobs of every kind, and plain ones among them, join and leave midway; float64, 1e-9."""
    missed = []
    for slots, step_tokens in ((1, 4096), (4, 60)):
        engine = Engine(models["llama"], PROBE, max_jobs=slots, step_tokens=step_tokens)
        jobs = {name: engine.submit(over(spec, policy)) for name, spec in JOBS.items()}
        others = [engine.submit(job_spec(3, seed)) for seed in (20, 21)]
        engine.start()
        for name, job in jobs.items():
            apart = relative(job.result.result(timeout=60).weights.tensors, plain[name])
            missed += [(slots, name, apart)] if apart >= 1e-9 else []
        for job in others:
            job.result.result(timeout=60)
        engine.close()
    assert missed == []


def test_another_teacher_prompt_shows(models, plain, policy):
    """The negative control."""
    spec = JOBS["top k"]
    first = spec.sequences[0]
    other = dataclasses.replace(first.teacher, ids=((first.teacher.ids[0] + 1) % 320, *first.teacher.ids[1:]))
    changed = dataclasses.replace(spec, sequences=(dataclasses.replace(first, teacher=other), *spec.sequences[1:]))
    engine = Engine(models["llama"], PROBE)
    engine.start()
    job = engine.submit(over(changed, policy))
    assert relative(job.result.result(timeout=60).weights.tensors, plain["top k"]) > 1e-6
    engine.close()


def test_float32_gradients_of_a_step(folders):
    """One step of unlike terms; gradients by autograd on the formula."""
    model = packed(folders["llama"], torch.float32)
    config = LoraConfig(rank=4, alpha=8)
    weights = initial_weights(config, model.find_targets(config.target_modules), 3)
    draw = torch.Generator().manual_seed(3)
    weights = LoraWeights(
        config, {p: (a, 0.3 * torch.randn(b.shape, generator=draw)) for p, (a, b) in weights.tensors.items()}
    )
    some = distilled(3, 11)
    asks = [Part((s.teacher,)) for s in some]
    exact, coarse = model.soft_targets(asks, 0), model.soft_targets(asks, 6)
    adapter = model.trainable(weights, job_spec().optimisation)
    terms = (Term(0.2, 0.1, exact[0]), Term(0.0, 0.3, coarse[1]), Term(0.25))
    model.forward_backward([Part(some, adapter, None, terms)])

    reference = peft_model(folders["llama"], weights, torch.float64)
    base = AutoModelForCausalLM.from_pretrained(folders["llama"], dtype=torch.float64)
    for sequence, term, k in zip(some, terms, (0, 6, None), strict=True):
        z = rows(reference, sequence)
        targets = torch.tensor([sequence.ids[label] for label in sequence.labels])
        loss = term.ce * nn.functional.cross_entropy(z, targets, reduction="sum")
        if k is not None:
            with torch.no_grad():
                said = rows(base, sequence.teacher)
            loss = loss + term.kl * plain_kl(z, said, k).sum()
        loss.backward()
    layers = {p: reference.get_submodule(f"base_model.model.{p}") for p in weights.tensors}
    theirs = {p: (m.lora_A["default"].weight.grad, m.lora_B["default"].weight.grad) for p, m in layers.items()}
    assert relative(adapter.gradients(), theirs) < 1e-5


def test_the_loss_reported_is_that_of_the_examples(models):
    """Nats a token, anchors left out; it falls."""
    spec = dataclasses.replace(
        JOBS["whole distribution"], anchors=sequences(3, 5), anchoring=Anchoring(per_step=2, weight=100.0)
    )
    loss = {}
    for name, one in (("with anchors", spec), ("without", JOBS["whole distribution"])):
        engine = Engine(models["llama"], PROBE)
        engine.start()
        loss[name] = engine.submit(one).result.result(timeout=60).losses
        engine.close()
    assert loss["with anchors"][0] == pytest.approx(loss["without"][0])
    assert 0 < loss["without"][-1] < loss["without"][0]


def test_a_teacher_is_asked_once_and_what_it_said_is_kept_within_bounds(models):
    model = models["llama"]
    asks = [Ask(s, "", 5) for s in sequences(4, 30)]
    teacher = Teacher(model, limit=1 << 20)
    first, read = teacher.targets(asks, {"": None}, step_tokens=20)
    again, more = teacher.targets(asks[::-1], {"": None}, step_tokens=20)
    assert read == sum(len(ask.sequence.ids) for ask in asks)
    assert more == 0
    assert all(one is other for one, other in zip(first, again[::-1], strict=True))
    assert teacher.bytes == sum(map(size_of, first))
    (whole,), _ = teacher.targets([Ask(asks[0].sequence, "", 0)], {"": None}, step_tokens=20)
    assert isinstance(whole, States), "another form of the same is another answer"
    small = Teacher(model, limit=size_of(first[0]) + 1)
    small.targets(asks, {"": None}, step_tokens=20)
    assert small.bytes <= size_of(first[0]) + 1


def test_every_anchor_comes_once_before_any_comes_again():
    taken = [i for step in range(6) for i in anchors_of_step(8, 4, 1, step)]
    assert [sorted(taken[start : start + 8]) for start in (0, 8, 16)] == [list(range(8))] * 3
    assert taken[:8] != taken[8:16]
    assert len(anchors_of_step(3, 9, 1, 5)) == 3
