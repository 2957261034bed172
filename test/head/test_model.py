"""The ray head: shapes, invariants, and that every part of it is used."""

from __future__ import annotations

import pytest
import torch

from dimm_ros.config import HeadConfig
from dimm_ros.head.loss import ray_loss
from dimm_ros.head.model import DimmHead, MapHead, Rays, fourier


def make_inputs(
    count: int = 40, patch_dim: int = 24, context_dim: int = 16
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    rays = torch.randn(count, 3, generator=generator) * torch.tensor([0.3, 0.3, 0.0]) + torch.tensor([0.0, 0.0, 1.0])
    return (
        torch.randn(count, patch_dim, generator=generator),
        torch.randn(count, context_dim, generator=generator),
        torch.nn.functional.normalize(rays, dim=-1),
    )


@pytest.mark.parametrize("fusion", ["attention", "mean"])
@pytest.mark.parametrize("confidence", [True, False])
def test_rays_are_pluecker_lines(fusion: str, confidence: bool) -> None:
    torch.manual_seed(0)
    head = DimmHead(24, 16, HeadConfig(mappers=3, width=32, fusion=fusion, confidence=confidence))
    rays = head(*make_inputs())
    torch.testing.assert_close(rays.directions.norm(dim=-1), torch.ones(40))
    torch.testing.assert_close((rays.directions * rays.moments).sum(-1), torch.zeros(40), atol=1e-6, rtol=0)
    assert (rays.direction_scale is not None) == confidence
    if confidence:
        assert (rays.direction_scale > 0).all() and (rays.moment_scale > 0).all()


def test_one_context_for_all_patches_is_the_same_as_repeating_it() -> None:
    torch.manual_seed(0)
    head = DimmHead(24, 16, HeadConfig(mappers=2, width=32))
    patches, context, camera_rays = make_inputs()
    one, repeated = head(patches, context[:1], camera_rays), head(patches, context[:1].expand(40, -1), camera_rays)
    torch.testing.assert_close(one.directions, repeated.directions)
    torch.testing.assert_close(one.moments, repeated.moments)


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    head = MapHead(24, 16, HeadConfig(mappers=3, width=32))
    directions = torch.nn.functional.normalize(torch.randn(40, 3), dim=-1)
    rays = head(*make_inputs())
    ray_loss(rays, directions, torch.linalg.cross(torch.randn(40, 3), directions)).backward()
    unused = [name for name, value in head.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0]
    assert unused == []


def test_patches_are_independent() -> None:
    """A patch's ray depends on its own token and its image's context alone (the paper's per-patch head)."""
    torch.manual_seed(0)
    head = DimmHead(24, 16, HeadConfig(mappers=3, width=32))
    patches, context, camera_rays = make_inputs()
    torch.testing.assert_close(
        head(patches, context, camera_rays).moments[7:9], head(patches[7:9], context[7:9], camera_rays[7:9]).moments
    )


def test_mappers_are_independent_mlps() -> None:
    """Against a plain loop over the N networks."""
    torch.manual_seed(0)
    mappers = DimmHead(24, 16, HeadConfig(mappers=3, width=32, depth=2)).mappers
    hidden = torch.randn(5, 32)
    for index, output in enumerate(mappers(hidden)):
        expected = hidden
        for weight, bias in zip(mappers.weights, mappers.biases, strict=True):
            expected = expected + torch.nn.functional.gelu(expected @ weight[index] + bias[index, 0])
        torch.testing.assert_close(output, expected)


def test_fourier_is_of_angles_from_the_axis() -> None:
    angle = 0.7
    ray = torch.tensor([[torch.sin(torch.tensor(angle)), 0.0, torch.cos(torch.tensor(angle))]])
    encoded = fourier(ray, 2)
    assert encoded.shape == (1, 10)
    torch.testing.assert_close(encoded[0, :2], torch.tensor([angle, 0.0]))
    torch.testing.assert_close(encoded[0, 2:4], torch.sin(torch.tensor([torch.pi * angle, 2 * torch.pi * angle])))
    assert torch.isfinite(fourier(torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]]), 3)).all()


def test_the_loss_is_least_at_the_truth_and_its_scale() -> None:
    """With confidence, the best scale of a fixed error e under exp(-e/s)/s^2 is s = e/2."""
    direction = torch.tensor([[0.0, 0.0, 1.0]])
    moment = torch.tensor([[0.2, 0.0, 0.0]])

    def loss(error: float, scale: float | None) -> float:
        scales = None if scale is None else torch.tensor([scale])
        return float(ray_loss(Rays(direction, moment + error, scales, scales), direction, moment))

    assert loss(0.0, None) == 0 < loss(0.01, None) < loss(0.02, None)
    error = 0.1 / 3**0.5  # each of three coordinates: a distance of 0.1; the direction is exact
    values = [loss(error, scale) - 2 * float(torch.tensor(scale).log()) for scale in (0.03, 0.05, 0.08)]
    assert values[1] < values[0] and values[1] < values[2], values


def test_a_maps_head_is_the_papers_and_what_joins_its_rays() -> None:
    torch.manual_seed(0)
    config = HeadConfig(mappers=3, width=32)
    paper, head = DimmHead(24, 16, config), MapHead(24, 16, config)
    paper.load_state_dict(head.state_dict())  # they have the same tensors, named as map files name them
    expected, together, alone = (each(*make_inputs()) for each in (paper, head, head.alone()))
    for rays in (together, alone):
        for field in ("directions", "moments", "direction_scale", "moment_scale"):
            assert torch.equal(getattr(rays, field), getattr(expected, field))
