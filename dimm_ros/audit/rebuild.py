"""Patch tokens of the mapped images, rebuilt from the head's weights by gradient descent.

The attacker knows a mapped view's pose and context (``attacker``), hence the true ray of each of its patches, and looks
for the tokens that the head likes best there. What patch tokens look like in general he knows from any images (a normal
distribution).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dimm_ros.audit.photos import EncodedImage
from dimm_ros.audit.structure import Probe
from dimm_ros.head.loss import ray_losses
from dimm_ros.progress import StepCallback

_PRIOR = 0.1  # weight of the prior beside the head's likelihood: the best of 0, 0.02 and 0.1 in a trial on red kitchen
_RATE = 0.05
_SHRINK = 1e-3


@dataclass(frozen=True)
class TokenPrior:
    """Normal distribution of patch tokens: mean (D,) and root (D, D) of the covariance."""

    mean: Tensor
    root: Tensor

    @classmethod
    def of(cls, photos: list[EncodedImage], device: torch.device, most: int = 20000) -> TokenPrior:
        """From images of anything."""
        tokens = torch.cat([photo.patches for photo in photos])
        chosen = torch.linspace(0, len(tokens) - 1, min(most, len(tokens))).long()
        tokens = tokens[chosen].float().to(device)
        covariance = torch.cov(tokens.T)
        covariance.diagonal().add_(_SHRINK * covariance.diagonal().mean())
        values, vectors = torch.linalg.eigh(covariance)
        return cls(tokens.mean(dim=0), vectors * values.clamp_min(0).sqrt())


def rebuild(
    probe: Probe,
    prior: TokenPrior,
    view: int,
    camera_rays: Tensor,
    steps: int,
    progress: StepCallback = lambda done, total: None,
) -> Tensor:
    """(P, D) tokens that fit best at (P, 3) camera rays of a mapped view."""
    directions, moments = probe.true_rays(view, camera_rays)
    white = torch.zeros(len(camera_rays), len(prior.mean), device=camera_rays.device, requires_grad=True)
    optimiser = torch.optim.Adam([white], lr=_RATE)
    for step in range(steps):
        rays = probe.head(prior.mean + white @ prior.root.T, probe.contexts[view, None], camera_rays)
        loss = (ray_losses(rays, directions, moments) + _PRIOR * white.square().sum(dim=1)).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        progress(step + 1, steps)
    return (prior.mean + white @ prior.root.T).detach()


def likeness(rebuilt: Tensor, true: Tensor, usual: Tensor) -> Tensor:
    """(P,) cosine of rebuilt and true (P, D) tokens, both less what is usual (P, D) at their places in an image."""
    return torch.nn.functional.cosine_similarity(rebuilt - usual, true - usual, dim=1)
