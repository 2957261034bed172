"""Training loss on predicted rays."""

from __future__ import annotations

from torch import Tensor

from dimm_ros.head.model import Rays


def ray_loss(rays: Rays, directions: Tensor, moments: Tensor) -> Tensor:
    """Mean loss of predicted against true rays, see ``ray_losses``."""
    return ray_losses(rays, directions, moments).mean()


def ray_losses(rays: Rays, directions: Tensor, moments: Tensor) -> Tensor:
    """(...) loss of each predicted ray against the true one, both in the map's normalised frame.

    A direction, and a moment given the direction, have two degrees of freedom. With e the distance of either from the
    truth and s its predicted scale, the loss is that of a two-dimensional Laplace density, summed over both,

        e / s + 2 log s

    so that the scales say how far off a ray is likely to be; the plain distances for a head without confidence.
    """
    direction_error = (rays.directions - directions).norm(dim=-1)
    moment_error = (rays.moments - moments).norm(dim=-1)
    if rays.direction_scale is None:
        return direction_error + moment_error
    return _laplace(direction_error, rays.direction_scale) + _laplace(moment_error, rays.moment_scale)


def _laplace(error: Tensor, scale: Tensor) -> Tensor:
    return error / scale + 2 * scale.log()
