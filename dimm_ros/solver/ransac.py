"""What both RANSACs share: drawing pairs of rays, MSAC scores, local optimisation and the robust kernel.

All hypotheses are drawn, solved and scored at once as a (hypotheses, rays) matrix, without a look at the data from the
host: the same number of operations runs for every image, on the device of the rays.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

#: Pairs drawn for each hypothesis kept: with 15 % good pairs the chance that too few are found is negligible.
_OVERSAMPLING = 16
#: Hypotheses that are refitted (LO-RANSAC): the best few, because scores of two-ray hypotheses are noisy.
_FINALISTS = 4
#: Reweighted fits that end a RANSAC.
_POLISHING_STEPS = 3


def draw_pairs(valid: Tensor, hypotheses: int, seed: int) -> Tensor:
    """(2, K) indices of distinct valid rays, K = 16 x hypotheses, uniform; the same for the same seed and valid rays.

    Meaningless (but within range) when fewer than two rays are valid.
    """
    first, second = _uniform(_OVERSAMPLING * hypotheses, seed, valid.device)
    count = valid.sum()
    i = (first * count).long()
    j = (i + 1 + (second * (count - 1)).long()) % count.clamp(min=1)
    # valid rays first, in their own order
    ranks = torch.argsort(valid.logical_not().to(torch.uint8), stable=True)
    return ranks[torch.stack([i, j]).clamp(max=len(valid) - 1)]


def choose_pairs(pairs: Tensor, usable: Tensor, preferred: Tensor | None, hypotheses: int) -> tuple[Tensor, Tensor]:
    """The first pairs that are usable, the preferred ones before the others.

    Args:
        pairs: (2, K) ray indices.
        usable: (K,) bool.
        preferred: (K,) bool or None.
        hypotheses: H, how many to return; H <= K.

    Returns:
        (2, H) ray indices, and (H,) bool: whether the pair is usable (false where there were fewer than H).
    """
    order = usable.logical_not().to(torch.uint8)
    if preferred is not None:
        order = 2 * order + preferred.logical_not().to(torch.uint8)
    chosen = torch.argsort(order, stable=True)[:hypotheses]
    return pairs[:, chosen], usable[chosen]


def biweight(squared: Tensor) -> Tensor:
    """Tukey's biweight ``(1 - s)^2`` of squared residuals in units of the squared threshold, zero beyond it.

    At half the threshold it weighs 0.56 (Cauchy's kernel with half the threshold as its scale: 0.5), but it reaches
    zero continuously, so that gross outliers have no influence at all and the estimator's covariance has no boundary
    term.
    """
    return (1.0 - squared).clamp(min=0.0).square()


def consensus(
    hypotheses: Tensor,
    usable: Tensor,
    precision: Tensor,
    squared_residuals: Callable[[Tensor], Tensor],
    fit: Callable[[Tensor], Tensor],
    local_steps: int,
) -> Tensor:
    """The model with the best MSAC score after local optimisation, polished by robust reweighting.

    Args:
        hypotheses: (H, ...) models.
        usable: (H,) bool.
        precision: (N,) inverse squared threshold of each ray, zero for dropped rays.
        squared_residuals: (K, ...) models -> (K, N).
        fit: (K, N) weights -> (K, ...) weighted least-squares models.
        local_steps: refits of the best hypotheses with the truncated loss.

    Returns:
        (...) the model; meaningless if no hypothesis is usable.
    """

    def normalised(models: Tensor) -> Tensor:
        return squared_residuals(models) * precision

    score = _msac(normalised(hypotheses)).masked_fill(~usable, torch.inf)
    scores, finalists = score.topk(min(_FINALISTS, len(hypotheses)), largest=False)
    finalists = torch.where(torch.isfinite(scores), finalists, finalists[:1])  # fewer usable ones: the best, repeated
    trail = [hypotheses[finalists]]
    for _ in range(local_steps):
        trail.append(fit((normalised(trail[-1]) < 1.0) * precision))
    candidates = torch.cat(trail)
    best = candidates.index_select(0, _msac(normalised(candidates)).argmin(dim=0, keepdim=True))
    polished = best
    for _ in range(_POLISHING_STEPS):
        polished = fit(biweight(normalised(polished)) * precision)
    return torch.where(torch.isfinite(polished).all(), polished, best)[0]


def _msac(normalised: Tensor) -> Tensor:
    """(K,) truncated sums of (K, N) normalised squared residuals; infinite where a model is not finite."""
    return normalised.clamp(max=1.0).sum(dim=1).nan_to_num(nan=torch.inf)


@lru_cache(maxsize=16)
def _uniform(count: int, seed: int, device: torch.device) -> Tensor:
    """(2, count) uniform numbers in [0, 1): drawn on the CPU, so that every device sees the same, and kept."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((2, count), generator=generator, dtype=torch.float64).to(device)
