"""The trainer on made-up features."""

from __future__ import annotations

from dataclasses import replace

import torch
from scipy.spatial.transform import Rotation

from dimm_ros.config import HeadConfig, TrainingConfig
from dimm_ros.head.model import MapHead, Rays
from dimm_ros.mapping.trainer import Normalisation, Trainer
from dimm_ros.mapping.training_views import TrainingViews

VIEWS, PATCHES, WIDTH, CONTEXT = 60, 12, 16, 24


def _views() -> TrainingViews:
    """Features of views whose contexts tell their poses."""
    generator = torch.Generator().manual_seed(0)
    where = torch.rand(VIEWS, 3, generator=generator, dtype=torch.float64) * 2 - 1
    rotations = torch.from_numpy(Rotation.from_rotvec(0.8 * where.numpy()).as_matrix())
    camera_rays = torch.nn.functional.normalize(
        torch.rand(VIEWS * PATCHES, 3, generator=generator) + torch.tensor([-0.5, -0.5, 1.0]), dim=1
    )
    view_of = torch.arange(VIEWS, dtype=torch.int32).repeat_interleave(PATCHES)
    return TrainingViews(
        patches=torch.randn(VIEWS * PATCHES, WIDTH, generator=generator).half(),
        camera_rays=camera_rays,
        view_of=view_of,
        directions=torch.einsum("bij,bj->bi", rotations[view_of.long()].float(), camera_rays),
        rotations=rotations,
        centres=where,
        context=(where.float() @ torch.randn(3, CONTEXT, generator=generator)).half(),
        frame_of=torch.arange(VIEWS, dtype=torch.int32),
    )


def test_a_head_learns_rays() -> None:
    views = _views()
    torch.manual_seed(0)
    head = MapHead(WIDTH, CONTEXT, HeadConfig(mappers=2, width=32))
    trainer = Trainer(head, views, Normalisation.of(views.centres), TrainingConfig(steps=150, batch=256))

    def error() -> float:
        rays = trainer.trained_head()(views.patches.float(), views.context.float(), views.camera_rays)
        return float((rays.directions - views.directions).norm(dim=1).median())

    before = error()
    for _ in range(trainer.config.steps):
        trainer.step()
    assert error() < 0.2 * before


class Watched(Trainer):
    """Notes what it learns from: the views of each batch."""

    def __init__(self, views: TrainingViews, **config: object) -> None:
        torch.manual_seed(0)
        head = MapHead(WIDTH, CONTEXT, HeadConfig(mappers=1, width=16, depth=1))
        super().__init__(head, views, Normalisation.of(views.centres), TrainingConfig(batch=256, **config))
        self.seen = []

    def _loss(
        self,
        predicted: Rays,
        camera_rays: torch.Tensor,
        directions: torch.Tensor,
        moments: torch.Tensor,
        views: torch.Tensor,
    ) -> torch.Tensor:
        self.seen.append(views)
        return super()._loss(predicted, camera_rays, directions, moments, views)


def test_recorded_images_get_their_share_of_a_batch() -> None:
    views = replace(_views(), frame_of=torch.arange(VIEWS, dtype=torch.int32) % (VIEWS // 10))  # one in ten is recorded
    for share in (0.0, 0.5, 0.9):
        trainer = Watched(views, steps=100, recorded_share=share)
        for _ in range(60):
            trainer.step()
        recorded = (torch.cat(trainer.seen) < VIEWS // 10).float().mean()
        assert abs(recorded - (share + 0.1 * (1 - share))) < 0.04
