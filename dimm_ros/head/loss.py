"""Training losses on predicted rays."""

from __future__ import annotations

from torch import Tensor

from dimm_ros.head.model import Rays

_STUDENT_DEGREES = 4.0
_WEIGHT_OF_LOG = 0.1  # the follow-up's, design facts of the project


def ray_loss(rays: Rays, directions: Tensor, moments: Tensor, kind: str = "laplace") -> Tensor:
    """Mean loss of predicted against true rays, see ``ray_losses``."""
    return ray_losses(rays, directions, moments, kind).mean()


def turn_loss(turned: Tensor, rotations: Tensor) -> Tensor:
    """Mean distance (Frobenius norm) of (V, 3, 3) told from true rotations: not its square, so that a few odd views do not lead."""
    return (turned - rotations).flatten(1).norm(dim=1).mean()


def ray_losses(rays: Rays, directions: Tensor, moments: Tensor, kind: str = "laplace") -> Tensor:
    """(...) loss of each predicted ray against the true one, both in the map's normalised frame.

    A direction, and a moment given the direction, have two degrees of freedom. With e the distance of either from the truth and
    s its predicted scale, the loss is the sum over both of

        laplace:   e / s + 2 log s                              a two-dimensional Laplace density
        student:   (n + 2) / 2 log(1 + e^2 / (n s^2)) + 2 log s    Student's t with n = 4
        weighted:  e^2 / s + 0.1 log s                           the follow-up paper's, its confidence being 1 / s
        plain:     e                                             also for heads without confidence

    so that the scales say how far off a ray is likely to be.
    """
    direction_error = (rays.directions - directions).norm(dim=-1)
    moment_error = (rays.moments - moments).norm(dim=-1)
    if rays.direction_scale is None or kind == "plain":
        return direction_error + moment_error
    return _term(direction_error, rays.direction_scale, kind) + _term(moment_error, rays.moment_scale, kind)


def _term(error: Tensor, scale: Tensor, kind: str) -> Tensor:
    if kind == "laplace":
        return error / scale + 2 * scale.log()
    if kind == "student":
        squared = (error / scale).square()
        return (_STUDENT_DEGREES + 2) / 2 * (1 + squared / _STUDENT_DEGREES).log() + 2 * scale.log()
    return error.square() / scale + _WEIGHT_OF_LOG * scale.log()
