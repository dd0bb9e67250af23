"""Training one adapter with PEFT and a plain torch loop: what the engine is compared with."""

from __future__ import annotations

import math

import peft
import torch
from torch import nn
from transformers import get_scheduler
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from sealkit.backends.lora import LoraWeights
from trainer_svc.encoding import Encoded
from trainer_svc.job import JobSpec
from trainer_svc.plan import generator_of

SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}


def peft_model(folder, weights: LoraWeights, dtype, policy: LoraWeights | None = None):
    """The base with `weights` on it as a trainable PEFT adapter, `policy` frozen beside it."""
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    model = peft.get_peft_model(base, peft_config(weights), autocast_adapter_dtype=False)
    fill(model, "default", weights, dtype)
    if policy is not None:
        model.add_adapter("policy", peft_config(policy), autocast_adapter_dtype=False)
        fill(model, "policy", policy, dtype)
        model.base_model.set_adapter(["default", "policy"])
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(".default." in name)
    return model


def peft_config(weights: LoraWeights) -> peft.LoraConfig:
    return peft.LoraConfig(
        r=weights.config.rank,
        lora_alpha=weights.config.alpha,
        target_modules=list(weights.config.target_modules),
        task_type="CAUSAL_LM",
    )


def fill(model, name: str, weights: LoraWeights, dtype) -> None:
    for path, (a, b) in weights.tensors.items():
        layer = model.get_submodule(f"base_model.model.{path}")
        layer.lora_A[name].weight.data = a.to(dtype)
        layer.lora_B[name].weight.data = b.to(dtype)


def trained_weights(model, weights: LoraWeights) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    layers = {path: model.get_submodule(f"base_model.model.{path}") for path in weights.tensors}
    return {
        path: (layer.lora_A["default"].weight.detach(), layer.lora_B["default"].weight.detach())
        for path, layer in layers.items()
    }


def batch_loss(model, sequences: list[Encoded], kl_beta: float = 0.0) -> torch.Tensor:
    """HF's own loss on a padded batch; the KL term, where asked for, from two full forward passes."""
    width = max(len(s.ids) for s in sequences)
    ids = torch.tensor([[*s.ids, *[0] * (width - len(s.ids))] for s in sequences])
    mask = torch.tensor([[1] * len(s.ids) + [0] * (width - len(s.ids)) for s in sequences])
    labels = torch.full_like(ids, -100)
    for row, s in enumerate(sequences):
        for position in s.labels:
            labels[row, position] = s.ids[position]
    output = model(input_ids=ids, attention_mask=mask, labels=None)
    carries = labels[:, 1:] != -100
    log_p = output.logits[:, :-1][carries].log_softmax(-1)
    loss = nn.functional.nll_loss(log_p, labels[:, 1:][carries])
    if kl_beta:
        with torch.no_grad(), model.disable_adapter():
            log_q = model(input_ids=ids, attention_mask=mask).logits[:, :-1][carries].log_softmax(-1)
        loss = loss + kl_beta * (log_q.exp() * (log_q - log_p)).sum(-1).mean()
    return loss


def train(model, spec: JobSpec) -> None:
    """One job, alone: permutation by epoch, batches, accumulation, AdamW, HF's schedule, clipping."""
    o = spec.optimisation
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=o.learning_rate, weight_decay=o.weight_decay, foreach=False)
    per_epoch = math.ceil(math.ceil(len(spec.sequences) / o.batch_size) / o.gradient_accumulation_steps)
    schedule = get_scheduler(SCHEDULES[o.schedule], optimiser, o.warmup_steps, o.epochs * per_epoch)
    for epoch in range(o.epochs):
        order = torch.randperm(len(spec.sequences), generator=generator_of(spec.seed, "order", epoch)).tolist()
        batches = [order[i : i + o.batch_size] for i in range(0, len(order), o.batch_size)]
        for start in range(0, len(batches), o.gradient_accumulation_steps):
            step = batches[start : start + o.gradient_accumulation_steps]
            optimiser.zero_grad()
            for batch in step:
                (batch_loss(model, [spec.sequences[i] for i in batch], o.kl_beta) / len(step)).backward()
            if o.max_grad_norm:
                nn.utils.clip_grad_norm_(parameters, o.max_grad_norm)
            optimiser.step()
            schedule.step()


def relative(ours, theirs) -> float:
    """Largest relative L2 distance between two sets of tensors by path."""
    return max(
        float((x.double() - y.double()).norm() / y.double().norm().clamp(min=1e-30))
        for path in theirs
        for x, y in zip(ours[path], theirs[path], strict=True)
    )
