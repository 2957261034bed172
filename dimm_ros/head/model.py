"""The DIMM head: one token per patch in, one world ray with its confidence out (ICCV 2025, section 3).

    token = patch ++ context ++ Fourier(patch centre)        context: the CLS token in the paper, more in ``encoder``
    semantic, geometric = two projections of the token
    embeddings = N independent MLP mappers of the geometric projection
    fused = attention of the semantic projection over the N embeddings
    ray = MLP(fused): direction, moment, and the scale of each one's error

``DimmHead`` is that, and no more. ``MapHead`` goes beyond the paper: a finished map's rays are drawn towards those of a
pose that is regressed from the image as a whole, see ``global_pose``.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dimm_ros.config import HeadConfig
from dimm_ros.head.global_pose import GlobalPose, blend

#: Smallest predicted scale (radians, and scene radii): keeps the likelihood finite on memorised rays.
_MIN_SCALE = 1e-3


@dataclass(frozen=True)
class Rays:
    """Predicted world rays in the map's normalised frame (origin at the mean camera centre, unit = scene radius).

    Attributes:
        directions: (..., 3) unit.
        moments: (..., 3), perpendicular to the directions.
        direction_scale: (...) typical error of the direction, radians; None without confidence.
        moment_scale: (...) typical error of the moment, scene radii; None without confidence.
        novelty: (V,) how unlike all mapped views each image as a whole is, see ``global_pose``; None while a head is
            trained.
    """

    directions: Tensor
    moments: Tensor
    direction_scale: Tensor | None = None
    moment_scale: Tensor | None = None
    novelty: Tensor | None = None

    def at(self, chosen: Tensor) -> Rays:
        """These of one image's rays."""
        names = ("directions", "moments", "direction_scale", "moment_scale")
        parts = {name: getattr(self, name) for name in names}
        return replace(self, **{name: None if part is None else part[chosen] for name, part in parts.items()})

    def in_metres(self, radius: float) -> dict[str, Tensor | None]:
        """Arguments of ``solve_pose``, in metres about the map's origin; ``radius``: the unit's length."""
        return {
            "directions": self.directions,
            "moments": self.moments * radius,
            "direction_sigma": self.direction_scale,
            "moment_sigma": None if self.moment_scale is None else self.moment_scale * radius,
        }


def fourier(camera_rays: Tensor, frequencies: int) -> Tensor:
    """XY token: Fourier encoding of a patch centre, (..., 3) unit camera rays -> (..., 2 + 4 * frequencies).

    The centre is given as the ray's angles from the optical axis (equidistant coordinates, radians), so that the token
    means the same for every lens, focal length and image size.
    """
    radial = camera_rays[..., :2].norm(dim=-1, keepdim=True)
    theta = torch.atan2(radial, camera_rays[..., 2:])
    angles = camera_rays[..., :2] * (theta / radial.clamp_min(1e-9))
    bands = math.pi * 2.0 ** torch.arange(frequencies, device=angles.device, dtype=angles.dtype)
    phase = (angles[..., None] * bands).flatten(-2)
    return torch.cat([angles, phase.sin(), phase.cos()], dim=-1)


class Mappers(nn.Module):
    """N independent residual MLPs of the same shape, run as one batched product: (B, W) -> (N, B, W)."""

    def __init__(self, count: int, width: int, depth: int) -> None:
        super().__init__()
        bound = math.sqrt(3.0 / width)
        self.weights = nn.ParameterList(
            nn.Parameter(torch.empty(count, width, width).uniform_(-bound, bound)) for _ in range(depth)
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(count, 1, width)) for _ in range(depth))

    def forward(self, geometric: Tensor) -> Tensor:
        hidden = geometric.expand(self.weights[0].shape[0], *geometric.shape)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            # in place: new megabytes cost as much as the product
            hidden = F.gelu(torch.baddbmm(bias, hidden, weight)).add_(hidden)
        return hidden


class DimmHead(nn.Module):
    """The paper's head: regresses one world ray per patch.

    Args:
        patch_dim: width of a patch token.
        context_dim: width of the context.
        config: sizes and choices.
    """

    def __init__(self, patch_dim: int, context_dim: int, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        # The context is standardised with the training views' statistics, which the map carries.
        self.register_buffer("context_mean", torch.zeros(context_dim))
        self.register_buffer("context_std", torch.ones(context_dim))
        # One matrix each for patch, context and XY: the context's product is done once per image, not once per patch.
        self.from_patch = nn.Linear(patch_dim, 2 * width)
        self.from_context = nn.Linear(context_dim, 2 * width, bias=False)
        self.from_xy = nn.Linear(2 + 4 * config.frequencies, 2 * width, bias=False)
        self.semantic_norm, self.geometric_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mappers = Mappers(config.mappers, width, config.depth)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.ray = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, 8 if config.confidence else 6),
        )

    def forward(self, patches: Tensor, context: Tensor, camera_rays: Tensor) -> Rays:
        """Rays of patches.

        Args:
            patches: (B, D) patch tokens.
            context: (V, C) context of the V images that the patches are of, B / V consecutive patches each.
            camera_rays: (B, 3) unit rays through the patch centres in the camera's frame.
        """
        projected = self.from_context((context - self.context_mean) / self.context_std)
        token = self.from_patch(patches).add_(self.from_xy(fourier(camera_rays, self.config.frequencies)))
        token = token.unflatten(0, (projected.shape[0], -1)).add_(projected[:, None]).flatten(0, 1)
        semantic, geometric = token.chunk(2, dim=-1)
        embeddings = self.mappers(F.gelu(self.geometric_norm(geometric)))
        raw = self.ray(self._fuse(F.gelu(self.semantic_norm(semantic)), embeddings)).float()
        directions = F.normalize(raw[:, :3], dim=-1)
        moments = raw[:, 3:6]
        moments = moments - (moments * directions).sum(-1, keepdim=True) * directions
        if not self.config.confidence:
            return Rays(directions=directions, moments=moments)
        scales = F.softplus(raw[:, 6:] - 2.0) + _MIN_SCALE
        return Rays(directions=directions, moments=moments, direction_scale=scales[:, 0], moment_scale=scales[:, 1])

    def _fuse(self, semantic: Tensor, embeddings: Tensor) -> Tensor:
        """(B, W) queries over (N, B, W) embeddings -> (B, W)."""
        if self.config.fusion == "mean":
            return embeddings.mean(dim=0)
        # The key's matrix multiplies the one query instead of the N embeddings.
        query = self.query(semantic) / math.sqrt(self.config.width)
        score = (embeddings * (query @ self.key.weight)).sum(dim=-1) + query @ self.key.bias
        return (embeddings * score.softmax(dim=0)[..., None]).sum(dim=0)


class MapHead(DimmHead):
    """A map's head: the paper's, whose rays are drawn towards those of the global pose.

    A subclass, so that its tensors keep the names that map files give them.

    Args:
        patch_dim, context_dim, config: as of ``DimmHead``.
        whole: regression of the global pose that joins the rays of a finished map; None leaves the rays to the patches.
    """

    def __init__(self, patch_dim: int, context_dim: int, config: HeadConfig, whole: GlobalPose | None = None) -> None:
        super().__init__(patch_dim, context_dim, config)
        self.whole = whole

    def forward(self, patches: Tensor, context: Tensor, camera_rays: Tensor) -> Rays:
        """As ``DimmHead.forward``; the rays of a finished map have their ``novelty`` as well."""
        rays = super().forward(patches, context, camera_rays)
        return rays if self.whole is None else self._blended(rays, context, camera_rays)

    def alone(self, context: Tensor | None = None) -> DimmHead:
        """The paper's head in this one, with the same weights; a merged head needs a (1, C) context to choose one."""
        head = copy.copy(self)
        head._modules = {**self._modules, "whole": None}
        return head

    def rotated(self, rotation: Tensor) -> MapHead:
        """A copy that answers in a frame that is turned about the normalised frame's origin, target_from_source (3, 3).

        Exact, since the last layer is linear in directions and moments, and the regression in poses.
        """
        head = copy.deepcopy(self)
        last = head.ray[-1]
        rotation = rotation.to(last.weight)
        with torch.no_grad():
            for values in (last.weight, last.bias[:, None]):
                values[:3], values[3:6] = rotation @ values[:3], rotation @ values[3:6]
            if head.whole is not None:
                head.whole.turn(rotation)
        return head

    def _blended(self, rays: Rays, context: Tensor, camera_rays: Tensor) -> Rays:
        """The rays drawn towards those of the global pose."""
        rotations, centres, novelty = self.whole(context)
        config = self.config
        share = (config.whole_least + novelty / config.whole_novelty).clamp_max(config.whole_share)
        directions, moments = blend(rays.directions, rays.moments, camera_rays, rotations, centres, share)
        return replace(rays, directions=directions, moments=moments, novelty=novelty)
