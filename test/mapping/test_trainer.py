"""The trainer on made-up features."""

from __future__ import annotations

import torch
from scipy.spatial.transform import Rotation

from dimm_ros.config import HeadConfig, TrainingConfig
from dimm_ros.head.model import MapHead
from dimm_ros.head.whole_image import nearest_rotations
from dimm_ros.mapping.trainer import Normalisation, Trainer
from dimm_ros.mapping.training_views import TrainingViews

VIEWS, PATCHES, WIDTH, CONTEXT = 60, 12, 16, 24


def _views() -> TrainingViews:
    """Features of views whose contexts tell their poses."""
    generator = torch.Generator().manual_seed(0)
    where = torch.rand(VIEWS, 3, generator=generator, dtype=torch.float64) * 2 - 1
    rotations = torch.from_numpy(Rotation.from_rotvec(0.8 * where.numpy()).as_matrix())
    camera_rays = torch.nn.functional.normalize(torch.rand(VIEWS * PATCHES, 3, generator=generator) + torch.tensor([-0.5, -0.5, 1.0]), dim=1)
    view_of = torch.arange(VIEWS, dtype=torch.int32).repeat_interleave(PATCHES)
    return TrainingViews(
        patches=torch.randn(VIEWS * PATCHES, WIDTH, generator=generator).half(), camera_rays=camera_rays, view_of=view_of,
        directions=torch.einsum("bij,bj->bi", rotations[view_of.long()].float(), camera_rays), rotations=rotations, centres=where,
        context=(where.float() @ torch.randn(3, CONTEXT, generator=generator)).half(), frame_of=torch.arange(VIEWS, dtype=torch.int32),
    )


def test_a_head_learns_rays_and_the_rotation_of_the_image() -> None:
    views = _views()
    torch.manual_seed(0)
    head = MapHead(WIDTH, CONTEXT, HeadConfig(mappers=2, width=32, turn_width=32))
    trainer = Trainer(head, views, Normalisation.of(views.centres), TrainingConfig(steps=150, batch=256, average=0.9))

    def errors() -> tuple[float, float]:
        rays = trainer.averaged_head()(views.patches.float(), views.context.float(), views.camera_rays)
        told = nearest_rotations(rays.turned).double() @ views.rotations.transpose(1, 2)
        return float((rays.directions - views.directions).norm(dim=1).median()), float(Rotation.from_matrix(told.numpy()).magnitude().mean())

    before = errors()
    for _ in range(trainer.config.steps):
        trainer.step()
    after = errors()
    assert after[0] < 0.2 * before[0] and after[1] < 0.2 * before[1], (before, after)


def test_a_head_without_that_part_learns_rays_alone() -> None:
    views = _views()
    torch.manual_seed(0)
    head = MapHead(WIDTH, CONTEXT, HeadConfig(mappers=2, width=32, turn_width=0))
    trainer = Trainer(head, views, Normalisation.of(views.centres), TrainingConfig(steps=60, batch=256))
    losses = [trainer.step() for _ in range(trainer.config.steps)]
    assert head.turn is None and sum(losses[-10:]) < sum(losses[:10])
