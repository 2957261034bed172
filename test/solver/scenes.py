"""Random cameras and rays for the solver's tests."""

from __future__ import annotations

import torch
from torch import Tensor

from dimm_ros.solver.rays import exp_so3, moments_of


class Scene:
    """N rays of a camera at a random pose, exact until noise or outliers are added."""

    def __init__(self, seed: int, rays: int = 200, reach: float = 2.0, bearings: Tensor | None = None) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        if bearings is None:  # a field of view of about 70 x 70 deg
            plane = 1.4 * (torch.rand((rays, 2), generator=self.generator, dtype=torch.float64) - 0.5)
            bearings = torch.cat([plane, torch.ones((rays, 1), dtype=torch.float64)], dim=1)
        self.bearings = torch.nn.functional.normalize(bearings, dim=1)
        axis = torch.nn.functional.normalize(self.normal(3), dim=0)
        self.rotation = exp_so3(axis * torch.pi * torch.rand((), generator=self.generator, dtype=torch.float64))
        self.centre = reach * self.normal(3)
        self.directions = self.bearings @ self.rotation.T
        self.moments = moments_of(self.centre, self.directions)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, float64."""
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def add_noise(self, direction_sigma: float | Tensor, moment_sigma: float | Tensor) -> None:
        """Independent errors: radians in each tangent axis of the direction, metres in each component of the moment."""
        error = self.normal(*self.directions.shape)
        error = error - self.directions * (error * self.directions).sum(dim=1, keepdim=True)
        self.directions = torch.nn.functional.normalize(self.directions + direction_sigma * error, dim=1)
        self.moments = self.moments + moment_sigma * self.normal(*self.moments.shape)

    def add_outliers(self, share: float) -> Tensor:
        """Replace a share of rays by lines through random points in random directions; returns their (N,) bool mask."""
        count = round(share * len(self.bearings))
        chosen = torch.randperm(len(self.bearings), generator=self.generator)[:count]
        self.directions[chosen] = torch.nn.functional.normalize(self.normal(count, 3), dim=1)
        self.moments[chosen] = moments_of(self.centre + 3.0 * self.normal(count, 3), self.directions[chosen])
        mask = torch.zeros(len(self.bearings), dtype=torch.bool)
        mask[chosen] = True
        return mask

    def errors(self, world_from_camera: Tensor) -> tuple[float, float]:
        """Distance (metres) and angle (radians) of a solved pose from the true one."""
        relative = world_from_camera[:3, :3] @ self.rotation.T
        angle = torch.linalg.matrix_norm(relative - torch.eye(3, dtype=torch.float64)) / 2**0.5  # first order
        return float(torch.linalg.vector_norm(world_from_camera[:3, 3] - self.centre)), float(angle)


def transform_rays(target_from_source: Tensor, directions: Tensor, moments: Tensor) -> tuple[Tensor, Tensor]:
    """The same lines in another frame.

    Args:
        target_from_source: (4, 4) rigid pose, metres.
        directions: (N, 3) unit, source frame.
        moments: (N, 3) metres, about the source frame's origin.

    Returns:
        (N, 3) directions in the target frame and (N, 3) moments about its origin.
    """
    rotation, translation = target_from_source[:3, :3], target_from_source[:3, 3]
    turned = directions @ rotation.T
    return turned, moments @ rotation.T + moments_of(translation, turned)
