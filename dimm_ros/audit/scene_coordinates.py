"""The yardstick: a map of the other kind, whose answer to a patch is the 3-D point that it shows, attacked in the same
way.

As ACE (CVPR 2023) it sees one patch token at a time; it is trained on the points of the recording's depth images, on
the same tokens.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dimm_ros.audit.photos import EncodedImage
from dimm_ros.progress import StepCallback

_WIDTH, _BLOCKS = 512, 3
_BATCH, _RATE = 2048, 2e-3


class PointHead(nn.Module):
    """(B, D) patch tokens -> (B, 3) world points, metres.

    Args:
        patch_dim: D.
        middle, spread: (3,) mean and standard deviation of the points it is to learn.
    """

    def __init__(self, patch_dim: int, middle: Tensor, spread: Tensor) -> None:
        super().__init__()
        self.register_buffer("middle", middle)
        self.register_buffer("spread", spread)
        self.enter = nn.Linear(patch_dim, _WIDTH)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, _WIDTH), nn.GELU()) for _ in range(_BLOCKS)
        )
        self.leave = nn.Sequential(nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, 3))

    def forward(self, patches: Tensor) -> Tensor:
        hidden = self.enter(patches)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.middle + self.spread * self.leave(hidden)


def train(
    photos: list[EncodedImage], steps: int, device: torch.device, progress: StepCallback = lambda done, total: None
) -> PointHead:
    """A scene-coordinate map of images with depth: AdamW, one cycle, mean distance."""
    torch.manual_seed(0)
    points = torch.from_numpy(np.concatenate([photo.points for photo in photos])).float().to(device)
    known = torch.isfinite(points).all(dim=1)
    patches, points = torch.cat([photo.patches for photo in photos]).to(device)[known], points[known]
    head = PointHead(patches.shape[1], points.mean(dim=0), points.std(dim=0)).to(device)
    optimiser = torch.optim.AdamW(head.parameters(), lr=_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        rows = torch.randint(len(points), (min(_BATCH, len(points)),), device=device)
        loss = F.pairwise_distance(head(patches[rows].float()), points[rows]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        progress(step + 1, steps)
    return head.eval().requires_grad_(False)


@torch.inference_mode()
def ask(head: PointHead, tokens: Tensor) -> np.ndarray:
    """(T, 3) points that it answers to (T, D) tokens."""
    return head(tokens.float().to(head.middle.device)).double().cpu().numpy()
