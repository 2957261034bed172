"""The global pose: the camera's, regressed from the image as a whole (kernel ridge regression on its context).

Map files and settings name it "whole" (tensors ``whole.*``, ``head.whole_share``).

The per-patch head knows every mapped view by heart and, between them, tends to the nearest; a smooth regression on the
global context, which is solved in closed form, does not. Their errors differ in part, so the head's rays are drawn
towards the rays of this pose, the more so the newer the view is (docs/benchmarks.md has what that gains). The distance
to the nearest mapped context says how new a view is; the covariance and the rejection of images from elsewhere rest on
it, too.

    x = (context - mean) / deviation
    z = P x                                              P: principal axes of the mapped views' x
    pose = offset + sum_i w_i exp(-|z - z_i|^2 / bs)     i over mapped views, s: median squared distance, b: bandwidth
    novelty = min_i |z - z_i|^2 / s + max(0, |x|^2 - |z|^2 - r) / s     r: what the axes leave of mapped views, on
    average

The weights solve (K + diag(ridge)) w = poses - offset. Recorded images have a small ridge, so that their poses are met.
Virtual views are turned exactly, but moved by a depth that is not exact, and their images are not quite what a camera
would see there: for their positions the ridge is large, so that they guide where nothing was recorded, and nowhere
else.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_AXES = 256
_RIDGE, _VIRTUAL_RIDGE = 1e-3, 0.2
_BANDWIDTH = 0.7
MAX_VIEWS = 4096  # solved in closed form: time grows with the cube of it
_SQUARINGS = 12  # to the 4096th power: eigenvalues half a per cent apart are told from one another to nine digits
_SAME = 1e-3  # floor of the novelty, that of an image the map was made from


class GlobalPose(nn.Module):
    """Pose and novelty of images from their contexts.

    Args:
        context_dim: width C of the context.
        views: number M of mapped views it rests on.
        axes: principal axes that are kept.
    """

    def __init__(self, context_dim: int, views: int, axes: int = _AXES) -> None:
        super().__init__()
        axes = min(axes, context_dim, views)
        self.register_buffer("mean", torch.zeros(context_dim))
        self.register_buffer("deviation", torch.ones(context_dim))
        self.register_buffer("basis", torch.zeros(context_dim, axes))
        self.register_buffer("views", torch.zeros(views, axes))
        self.register_buffer("weights", torch.zeros(views, 12))
        self.register_buffer("offset", torch.zeros(12))
        self.register_buffer("ridge", torch.full((views,), _RIDGE))
        self.register_buffer("bandwidth", torch.ones(()))
        self.register_buffer("spread", torch.ones(()))
        self.register_buffer("left", torch.zeros(()))

    @classmethod
    def fit(
        cls, context: Tensor, rotations: Tensor, centres: Tensor, recorded: Tensor | None = None, axes: int = _AXES
    ) -> GlobalPose:
        """Solve for the weights.

        Args:
            context: (V, C) of mapped views; no more than 4096 of them, evenly chosen, are used.
            rotations: (V, 3, 3) world_from_camera.
            centres: (V, 3) camera centres in the map's normalised frame.
            recorded: (V,) bool, false for virtual views; None if all are recorded.
        """
        recorded = torch.ones(len(context), dtype=torch.bool) if recorded is None else recorded
        if len(context) > MAX_VIEWS:
            chosen = torch.linspace(0, len(context) - 1, MAX_VIEWS).long()
            context, rotations, centres, recorded = (
                context[chosen],
                rotations[chosen],
                centres[chosen],
                recorded[chosen],
            )
        result = cls(context.shape[1], len(context), axes)
        context = context.double()
        # Rounded as the map's file stores them, before anything is worked out from them.
        result.mean.copy_(context.mean(dim=0).half())
        result.deviation.copy_(context.std(dim=0).clamp_min(1e-3).half())
        standardised = (context - result.mean.double()) / result.deviation.double()
        # Principal axes by the smaller of the two Gram matrices.
        values, vectors = torch.linalg.eigh(standardised @ standardised.T)
        kept = slice(len(values) - result.basis.shape[1], None)
        principal = standardised.T @ (vectors[:, kept] / values[kept].clamp_min(1e-6).sqrt())
        result.basis.copy_(principal.half())
        places, left = result._place(context.float())
        result.views.copy_(places.half())
        result.left.copy_(left.mean())
        squared = _squared_distance(result.views.double(), result.views.double())
        result.spread.copy_(squared.flatten().median().clamp_min(1e-9))
        result.ridge.copy_(torch.where(recorded, _RIDGE, _VIRTUAL_RIDGE))
        result.bandwidth.fill_(_BANDWIDTH)
        kernel = torch.exp(-squared / (result.bandwidth * result.spread).double())
        targets = torch.cat([centres.double(), rotations.double().flatten(1)], dim=1)
        result.offset.copy_(targets.mean(dim=0))
        targets -= result.offset.double()
        for columns, ridge in (
            (slice(0, 3), result.ridge.double()),
            (slice(3, 12), torch.full_like(result.ridge, _RIDGE).double()),
        ):
            result.weights[:, columns] = torch.linalg.solve(kernel + torch.diag(ridge), targets[:, columns]).float()
        return result.to(centres.device)

    def forward(self, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotations (V, 3, 3) world_from_camera, centres (V, 3) in the normalised frame, and novelty (V,) of (V, C)
        contexts.

        Novelty is the squared distance to the nearest mapped context, in units of the median between mapped ones; what
        lies outside all mapped contexts' axes counts as well.
        """
        places, left = self._place(context)
        squared = _squared_distance(places, self.views) / self.spread
        pose = self.offset + torch.exp(-squared / self.bandwidth) @ self.weights
        novelty = squared.amin(dim=1) + (left - self.left).clamp_min(0) / self.spread
        return nearest_rotations(pose[:, 3:].reshape(-1, 3, 3)), pose[:, :3], novelty.clamp_min(_SAME)

    def mapped(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mapped views, as the map holds the M it was fitted to: contexts (M, C), rotations, centres, and which were
        recorded.

        The contexts are what the axes leave of them; the poses are those of the fit, to the precision of the weights.
        """
        context = self.mean + self.deviation * (self.views.float() @ self.basis.T.float())
        squared = _squared_distance(self.views.double(), self.views.double()) / (self.bandwidth * self.spread).double()
        weights = self.weights.double()
        pose = self.offset.double() + torch.exp(-squared) @ weights
        pose[:, :3] += self.ridge.double()[:, None] * weights[:, :3]
        pose[:, 3:] += _RIDGE * weights[:, 3:]
        return context, nearest_rotations(pose[:, 3:].reshape(-1, 3, 3)), pose[:, :3], self.ridge < _VIRTUAL_RIDGE

    def median_distance(self, context: Tensor) -> Tensor:
        """Median squared distance between (V, C) contexts as this map measures it; its ``spread`` is that of its own
        views.
        """
        places = self._place(context.float())[0].double()
        return _squared_distance(places, places).flatten().median()

    def turn(self, rotation: Tensor) -> None:
        """Answer in a frame that is turned about the normalised frame's origin, target_from_source (3, 3); exact,
        for poses are linear in the weights."""
        for values in (self.weights, self.offset[None]):
            values[:, :3] = values[:, :3] @ rotation.T
            values[:, 3:] = (rotation @ values[:, 3:].unflatten(1, (3, 3))).flatten(1)

    def _place(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """(V, A) coordinates on the axes, and (V,) squared length of what they leave."""
        standardised = (context - self.mean) / self.deviation
        places = standardised @ self.basis
        return places, standardised.square().sum(dim=1) - places.square().sum(dim=1)


def nearest_rotations(matrices: Tensor) -> Tensor:
    """The rotations nearest (Frobenius norm) to (V, 3, 3) matrices.

    Their quaternions are the main eigenvectors of Davenport's matrix, found by squaring it: a dozen small products,
    without the decomposition that a GPU's host would wait for, and that ONNX lacks.
    """
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-1) for row in matrices.unbind(-2))
    rows = (
        (a + e + i, h - f, c - g, d - b),
        (h - f, a - e - i, b + d, c + g),
        (c - g, b + d, e - a - i, f + h),
        (d - b, c + g, f + h, i - a - e),
    )
    davenport = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    # Shifted by a bound of its eigenvalues, none of which is negative then.
    bound = math.sqrt(3) * matrices.square().sum(dim=(-2, -1)).sqrt().clamp_min(1e-9)
    power = davenport / bound[..., None, None] + torch.eye(4, dtype=matrices.dtype, device=matrices.device)
    for _ in range(_SQUARINGS // 2):
        power = power @ power
        power = power @ power
        # in the end the quaternion's outer product with itself
        power = power / power.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    (ww, wx, wy, wz), (_, xx, xy, xz), (_, _, yy, yz), (_, _, _, zz) = (row.unbind(-1) for row in power.unbind(-2))
    rotation = (
        ww + xx - yy - zz,
        2 * (xy - wz),
        2 * (xz + wy),
        2 * (xy + wz),
        ww - xx + yy - zz,
        2 * (yz - wx),
        2 * (xz - wy),
        2 * (yz + wx),
        ww - xx - yy + zz,
    )
    return torch.stack(rotation, dim=-1).unflatten(-1, (3, 3))


def blend(
    directions: Tensor, moments: Tensor, camera_rays: Tensor, rotations: Tensor, centres: Tensor, share: Tensor
) -> tuple[Tensor, Tensor]:
    """Rays drawn towards those of known poses.

    A moment about the pose's own centre says how far beside it the ray passes; that is what shrinks, whatever the turn.

        d' = normalised((1 - s) d + s R u)      m' = c x d' + (1 - s) (m - c x d), less its part along d'

    Args:
        directions, moments: (B, 3) world rays, B / V consecutive ones of each of V images.
        camera_rays: (B, 3) u.
        rotations, centres: (V, 3, 3) R world_from_camera, (V, 3) c.
        share: (V,) s.
    """
    count, shape = rotations.shape[0], directions.shape  # not len(): a traced graph would hold that number
    directions, moments, camera_rays = (part.reshape(count, -1, 3) for part in (directions, moments, camera_rays))
    posed = torch.einsum("vij,vbj->vbi", rotations, camera_rays)
    centres = centres[:, None].expand_as(directions)
    drawn = F.normalize(torch.lerp(directions, posed, share[:, None, None]), dim=-1)
    beside = (1 - share[:, None, None]) * (moments - torch.linalg.cross(centres, directions))
    moments = torch.linalg.cross(centres, drawn) + beside - (beside * drawn).sum(-1, keepdim=True) * drawn
    return drawn.reshape(shape), moments.reshape(shape)


def _squared_distance(one: Tensor, other: Tensor) -> Tensor:
    """(V, M) squared distances of (V, A) and (M, A) points."""
    return (one.square().sum(1)[:, None] + other.square().sum(1) - 2 * one @ other.T).clamp_min(0)
