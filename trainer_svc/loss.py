"""Cross-entropy, and KL to the unadapted model, with their gradient by the logits in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK_ELEMENTS = 1 << 22
"""Logits looked at in float32 at a time, so that no float32 copy of all of them is ever held."""


@torch.no_grad()
def loss_gradient_(
    logits: Tensor, targets: Tensor, weights: Tensor, reference: Tensor | None, kl_weights: Tensor
) -> Tensor:
    """Replaces `logits` [labels, vocabulary] in place by the gradient of

        sum over rows of  weights · CE(logits, targets) + kl_weights · KL(softmax(reference) || softmax(logits))

    and returns the cross-entropy of each row [labels], in nats (float32, or float64 for float64 logits). `reference`
    has the shape of `logits`, or is None where no row has a KL weight. Computed in float32 at least.
    """
    exact = logits.dtype if logits.dtype == torch.float64 else torch.float32
    rows = max(1, _CHUNK_ELEMENTS // logits.shape[1])
    entropies = []
    for start in range(0, len(logits), rows):
        chunk = slice(start, start + rows)
        z = logits[chunk].to(exact)
        target, weight = targets[chunk, None], weights[chunk, None].to(exact)
        log_total = z.logsumexp(dim=1, keepdim=True)
        entropies.append((log_total - z.gather(1, target))[:, 0])
        probability = z.sub_(log_total).exp_()
        if reference is None:
            gradient = probability.mul_(weight)
        else:
            kl_weight = kl_weights[chunk, None].to(exact)
            gradient = probability.mul_(weight + kl_weight)
            gradient.sub_(reference[chunk].to(exact).softmax(dim=1).mul_(kl_weight))
        gradient.scatter_add_(1, target, -weight)
        logits[chunk].copy_(gradient)
    return torch.cat(entropies)
