"""Pose from the image as a whole."""

from __future__ import annotations

import pytest
import torch
from scipy.spatial.transform import Rotation

from dimm_ros.config import HeadConfig
from dimm_ros.head.global_pose import GlobalPose, blend
from dimm_ros.head.model import MapHead

CONTEXT = 48


def _world(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Contexts that are a smooth function of the pose, rotations and centres on a path that bends."""
    where = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1
    centres = torch.stack([where[:, 0], where[:, 1], 0.2 * where[:, 0] * where[:, 1]], dim=1)
    angles = torch.stack([30 * where[:, 1], 60 * where[:, 0], 5 * where[:, 0]], dim=1)
    rotations = torch.from_numpy(Rotation.from_euler("xyz", angles.numpy(), degrees=True).as_matrix())
    mix = torch.randn(2, CONTEXT, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    context = torch.cat([torch.sin(2 * where @ mix), where @ mix], dim=1)[:, :CONTEXT] + 3.0
    return context.float(), rotations, centres


def _angle(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(Rotation.from_matrix((one.transpose(1, 2).double() @ other.double()).numpy()).magnitude())


def test_poses_between_the_mapped_views_are_interpolated() -> None:
    whole = GlobalPose.fit(*_world(300, 0))
    context, rotations, centres = _world(50, 1)
    predicted, places, novelty = whole(context)
    torch.testing.assert_close(predicted @ predicted.transpose(1, 2), torch.eye(3).expand(50, 3, 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.linalg.det(predicted), torch.ones(50), atol=1e-4, rtol=0)
    assert (places - centres).norm(dim=1).median() < 0.02
    assert _angle(predicted, rotations).median() < 0.02
    assert novelty.max() < 0.1


def test_novelty_tells_mapped_views_from_others() -> None:
    context, rotations, centres = _world(300, 0)
    whole = GlobalPose.fit(context, rotations, centres)
    assert whole(context)[2].max() < 0.01
    between = whole(_world(50, 1)[0])[2]
    elsewhere = whole(context[:50].flip(dims=(1,)))[2]
    assert elsewhere.median() > 10 * between.median() and (elsewhere > between.max()).float().mean() > 0.9


def test_what_lies_outside_the_mapped_views_axes_is_new() -> None:
    """Twenty views span at most twenty of the context's directions; an image that differs from one of them in the
    others alone is new, too.
    """
    context, rotations, centres = _world(20, 0)
    whole = GlobalPose.fit(context, rotations, centres)
    # no view has a share of these
    across = torch.linalg.svd(whole.basis, full_matrices=True)[0][:, whole.basis.shape[1] :]
    assert across.shape[1] >= CONTEXT - 20
    for size in (0.5, 2.0, 8.0):
        moved = context + whole.deviation * (size * across[:, 0])
        expected = (size**2 - whole.left) / whole.spread
        torch.testing.assert_close(whole(moved)[2], expected.clamp_min(1e-3).expand(20), atol=5e-3, rtol=0.02)


def test_more_views_than_it_keeps_are_thinned_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import dimm_ros.head.global_pose as module

    monkeypatch.setattr(module, "MAX_VIEWS", 150)
    whole = GlobalPose.fit(*_world(400, 0))
    context, _, centres = _world(50, 1)
    assert len(whole.views) == 150 and (whole(context)[1] - centres).norm(dim=1).median() < 0.05


def test_a_virtual_view_that_is_wrong_does_little_harm_and_a_recorded_one_is_met() -> None:
    context, rotations, centres = _world(200, 0)
    recorded = torch.arange(200) < 150
    shifted = centres + torch.where(recorded, 0.0, 0.3)[:, None] * torch.tensor([0.0, 0.0, 1.0])
    trusting, careful = (
        GlobalPose.fit(context, rotations, shifted),
        GlobalPose.fit(context, rotations, shifted, recorded),
    )
    new, _, truth = _world(60, 1)
    trusted, cared = ((whole(new)[1] - truth).norm(dim=1).median() for whole in (trusting, careful))
    assert cared < 0.5 * trusted
    assert (careful(context[:150])[1] - centres[:150]).norm(dim=1).median() < 0.01


def test_what_a_map_holds_of_its_views() -> None:
    context, rotations, centres = _world(80, 0)
    recorded = torch.arange(80) < 50
    held, turned, places, real = GlobalPose.fit(context, rotations, centres, recorded).mapped()
    torch.testing.assert_close(places, centres, atol=1e-3, rtol=0)
    assert _angle(turned, rotations).max() < 1e-2 and (real == recorded).all()
    assert (held - context).norm() < 0.02 * context.norm()


def _posed(
    rotations: torch.Tensor, centres: torch.Tensor, camera_rays: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rays of an equal number of camera rays for each pose."""
    directions = torch.einsum("vij,vbj->vbi", rotations, camera_rays.unflatten(0, (len(rotations), -1)))
    return directions.flatten(0, 1), torch.linalg.cross(centres[:, None].expand_as(directions), directions).flatten(
        0, 1
    )


def test_blended_rays_lie_between_those_of_the_two_poses() -> None:
    generator = torch.Generator().manual_seed(0)
    camera_rays = torch.nn.functional.normalize(torch.randn(20, 3, generator=generator), dim=1)
    one, other = torch.randn(2, 2, 3, generator=generator)
    angles = torch.tensor([[10.0, -20, 5], [3, 8, -15]])
    rotations, near = (
        torch.from_numpy(Rotation.from_euler("xyz", turn.numpy(), degrees=True).as_matrix()).float()
        for turn in (angles, angles + 2)
    )
    rays = _posed(rotations, one, camera_rays)
    none, some, all_ = torch.zeros(2), torch.tensor([0.25, 0.5]), torch.ones(2)
    for mixed, expected in (
        (blend(*rays, camera_rays, near, other, none), rays),
        (blend(*rays, camera_rays, near, other, all_), _posed(near, other, camera_rays)),
        (
            blend(*rays, camera_rays, rotations, other, some),
            _posed(rotations, torch.lerp(one, other, some[:, None]), camera_rays),
        ),
    ):
        torch.testing.assert_close(mixed[0], expected[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(mixed[1], expected[1], atol=1e-5, rtol=0)
    directions, moments = blend(*rays, camera_rays, near, other, some)
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(20))
    torch.testing.assert_close((directions * moments).sum(1), torch.zeros(20), atol=1e-6, rtol=0)


def test_a_head_without_share_is_the_head_alone() -> None:
    torch.manual_seed(0)
    context, rotations, centres = _world(60, 0)
    whole = GlobalPose.fit(context, rotations, centres)
    heads = [MapHead(24, CONTEXT, HeadConfig(mappers=2, width=32, whole_share=share), whole) for share in (0.0, 0.7)]
    heads[1].load_state_dict(heads[0].state_dict())
    camera_rays = torch.nn.functional.normalize(torch.rand(8, 3) + torch.tensor([0.0, 0.0, 1.0]), dim=1)
    patches = torch.randn(8, 24)
    results = [head(patches, context[:1], camera_rays) for head in (*heads, heads[1].alone())]
    torch.testing.assert_close(results[0].moments, results[2].moments)
    assert (results[1].moments - results[0].moments).abs().max() > 1e-3
    share = (HeadConfig().whole_least + results[1].novelty / HeadConfig().whole_novelty).clamp_max(0.7)
    turned, places, _ = whole(context[:1])
    directions, moments = blend(results[0].directions, results[0].moments, camera_rays, turned, places, share)
    torch.testing.assert_close(results[1].directions, directions)
    torch.testing.assert_close(results[1].moments, moments)
    assert results[2].novelty is None and results[0].novelty.shape == (1,)
