"""Training losses on predicted rays."""

from __future__ import annotations

from torch import Tensor

from dimm_ros.head.model import Rays


def ray_loss(rays: Rays, directions: Tensor, moments: Tensor) -> Tensor:
    """Mean loss of predicted against true rays, both in the map's normalised frame.

    Without confidence: the unsquared distances of direction and moment. With confidence: the negative log likelihood of
    a two-dimensional Laplace density of each (a direction and a moment given the direction have two degrees of freedom),
    so that the scales say how far off a ray is likely to be.
    """
    direction_error = (rays.directions - directions).norm(dim=-1)
    moment_error = (rays.moments - moments).norm(dim=-1)
    if rays.direction_scale is None:
        return (direction_error + moment_error).mean()
    terms = direction_error / rays.direction_scale + 2 * rays.direction_scale.log()
    terms = terms + moment_error / rays.moment_scale + 2 * rays.moment_scale.log()
    return terms.mean()
