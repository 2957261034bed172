"""The trainer on made-up features."""

from __future__ import annotations

from dataclasses import replace

import torch
from scipy.spatial.transform import Rotation

from dimm_ros.config import HeadConfig, TrainingConfig
from dimm_ros.head.model import MapHead, Rays
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


class Watched(Trainer):
    """Notes what it learns from: the views of each batch."""

    def __init__(self, views: TrainingViews, **config: object) -> None:
        torch.manual_seed(0)
        head = MapHead(WIDTH, CONTEXT, HeadConfig(mappers=1, width=16, depth=1, turn_width=8))
        super().__init__(head, views, Normalisation.of(views.centres), TrainingConfig(batch=256, **config))
        self.seen, self.contexts = [], []
        head.from_context.register_forward_pre_hook(lambda _, given: self.contexts.append(given[0]))  # standardised

    def _loss(self, predicted: Rays, camera_rays: torch.Tensor, directions: torch.Tensor, moments: torch.Tensor, views: torch.Tensor) -> torch.Tensor:
        self.seen.append(views)
        return super()._loss(predicted, camera_rays, directions, moments, views)

    def regularised(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Contexts as the head was given them, and as they are; both standardised."""
        true = (self.views.context.float() - self.head.context_mean) / self.head.context_std
        return torch.cat(self.contexts), torch.cat([true[views] for views in self.seen])


def test_recorded_images_get_their_share_of_a_batch() -> None:
    views = replace(_views(), frame_of=torch.arange(VIEWS, dtype=torch.int32) % (VIEWS // 10))  # one in ten is recorded
    for share in (0.0, 0.5, 0.9):
        trainer = Watched(views, steps=100, recorded_share=share)
        for _ in range(60):
            trainer.step()
        recorded = (torch.cat(trainer.seen) < VIEWS // 10).float().mean()
        assert abs(recorded - (share + 0.1 * (1 - share))) < 0.04


def test_the_context_is_blurred_by_noise_and_by_what_is_left_out() -> None:
    views = _views()
    for noise, dropout in ((0.0, 0.0), (0.1, 0.0), (0.4, 0.0), (0.0, 0.3)):
        trainer = Watched(views, steps=40, context_noise=noise, context_dropout=dropout)
        for _ in range(20):
            trainer.step()
        given, true = trainer.regularised()
        kept = given != 0  # left out: the mean
        assert abs((~kept).float().mean() - dropout) < 0.02
        apart = (given - true)[kept]
        assert abs(apart.std() - noise) < 0.05 * noise + 1e-4 and abs(apart.mean()) < 0.01


def test_the_maps_weights_are_a_moving_average() -> None:
    """Its decay grows from two elevenths, so that the random weights at the start are forgotten."""
    trainer = Watched(_views(), steps=40, average=0.8, learning_rate=1e-2)
    expected = {name: value.clone() for name, value in trainer.head.state_dict().items()}
    for step in range(1, 31):
        trainer.step()
        decay = min(0.8, (1 + step) / (10 + step))
        for name, value in trainer.head.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value
    averaged = trainer.averaged_head().state_dict()
    torch.testing.assert_close(averaged, expected, atol=1e-5, rtol=1e-4)
    assert (averaged["ray.1.weight"] - trainer.head.state_dict()["ray.1.weight"]).abs().max() > 1e-3
