"""Scene coordinates (the method of ACE, CVPR 2023) on the product's own tokens: each patch regresses the 3D point that
it shows.

Trained by reprojection alone, without depth, on the product's feature buffer with its schedule and batches; PoseLib's
PnP + RANSAC on the points. In ``scene_coordinates_context`` the image's global context joins the patch, regularised by
noise, as in GLACE (CVPR 2024). A reference of method, not of engineering.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers.peer import Mapped, PeerResult, Stages, encoded
from benchmarks.peers.pnp import pose_from_points
from dimm_ros.config import PRESETS, TrainingConfig
from dimm_ros.encoder.dinov2 import Encoder
from dimm_ros.geometry.camera import Camera
from dimm_ros.head.model import fourier
from dimm_ros.mapping.trainer import Normalisation, Trainer
from dimm_ros.mapping.training_views import TrainingViews
from dimm_ros.progress import ProgressCallback

NAME = "scene_coordinates"
TITLE = "scene coordinates (ACE-style head on the same tokens, PnP)"
NEEDS = ("poselib",)

_WIDTH, _BLOCKS = 384, 3
_FREQUENCIES = 6
_NEAR, _FAR = 0.1, 100.0  # metres; predictions nearer or further are drawn towards _GUESS along the ray
_GUESS = 3.0
_MAX_PX = 1000.0
_CLAMP = (50.0, 1.0)  # pixels at the beginning and at the end of the training, as ACE's
_PNP_PX = 10.0  # ACE's inlier threshold


class SceneCoordinateHead(nn.Module):
    """One world point per patch, in homogeneous coordinates of the map's normalised frame.

    Args:
        patch_dim, context_dim: widths of a patch token and of the global context.
        width, blocks: of the residual MLP.
    """

    def __init__(self, patch_dim: int, context_dim: int, width: int = _WIDTH, blocks: int = _BLOCKS) -> None:
        super().__init__()
        self.register_buffer("context_mean", torch.zeros(context_dim))
        self.register_buffer("context_std", torch.ones(context_dim))
        self.from_patch = nn.Linear(patch_dim, width)
        self.from_context = nn.Linear(context_dim, width, bias=False)
        self.from_xy = nn.Linear(2 + 4 * _FREQUENCIES, width, bias=False)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
            for _ in range(blocks)
        )
        self.point = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 4))

    def forward(self, patches: Tensor, context: Tensor, camera_rays: Tensor) -> Tensor:
        """(B, 3) points of (B, D) patches; (V, C) contexts of the V images that they are of, B / V consecutive patches
        each.
        """
        shared = self.from_context((context - self.context_mean) / self.context_std).repeat_interleave(
            len(patches) // len(context), dim=0
        )
        hidden = self.from_patch(patches) + shared + self.from_xy(fourier(camera_rays, _FREQUENCIES))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        raw = self.point(hidden)
        return raw[:, :3] / (F.softplus(raw[:, 3:] + math.log(math.e - 1)) + 0.01)  # a scale of about one to begin with


class SceneCoordinateTrainer(Trainer):
    """The product's trainer with reprojection errors for a loss.

    Args:
        focal: focal length of the encoder's input, pixels: the unit of the errors.
    """

    def __init__(
        self,
        head: SceneCoordinateHead,
        data: TrainingViews,
        normalisation: Normalisation,
        config: TrainingConfig,
        focal: float,
    ) -> None:
        super().__init__(head, data, normalisation, config)
        self._focal, self._radius = focal, normalisation.radius
        self._rotations = data.rotations.float()

    def _loss(
        self, predicted: Tensor, camera_rays: Tensor, directions: Tensor, moments: Tensor, views: Tensor
    ) -> Tensor:
        return reprojection_loss(
            self.in_camera(predicted, views), camera_rays, self._focal, _clamp(self.done / self.config.steps)
        )

    def in_camera(self, points: Tensor, views: Tensor) -> Tensor:
        """(B, 3) points of the normalised frame, consecutive ones of each of (V,) views, in the views' cameras,
        metres.
        """
        centres, rotations = self.centres[views].to(self.device), self._rotations[views].to(self.device)
        local = points.unflatten(0, (len(views), -1)) - centres[:, None]
        return self._radius * torch.einsum("vji,vpj->vpi", rotations, local).flatten(0, 1)


def _clamp(progress: float) -> float:
    """Pixels at which the loss is clamped: a quarter circle from wide to narrow."""
    wide, narrow = _CLAMP
    return wide * math.sqrt(max(0.0, 1 - progress**2)) + narrow


def reprojection_loss(points: Tensor, camera_rays: Tensor, focal: float, clamp: float) -> Tensor:
    """Mean tanh-clamped distance in pixels of (B, 3) points in their cameras from the (B, 3) rays of their patches.

    Points behind or far from the camera, or more than 1000 px off, are drawn to a point some metres along their ray
    instead.
    """
    plane = camera_rays[:, :2] / camera_rays[:, 2:].clamp_min(1e-3)
    depth = points[:, 2]
    error = focal * (points[:, :2] / depth.clamp_min(_NEAR)[:, None] - plane).norm(dim=1)
    valid = (depth > _NEAR) & (depth < _FAR) & (error < _MAX_PX)
    guess = _GUESS * camera_rays / camera_rays[:, 2:].clamp_min(1e-3)
    loss = torch.where(valid, clamp * torch.tanh(error / clamp), (points - guess).abs().sum(dim=1))
    return loss.mean()


def train(
    data: TrainingViews,
    normalisation: Normalisation,
    focal: float,
    training: TrainingConfig,
    progress: ProgressCallback,
    width: int = _WIDTH,
) -> SceneCoordinateHead:
    """A head with averaged weights, trained on a feature buffer's tensors."""
    torch.manual_seed(training.seed)
    head = SceneCoordinateHead(data.patches.shape[1], data.context.shape[1], width)
    trainer = SceneCoordinateTrainer(head, data, normalisation, training, focal)
    while trainer.done < training.steps:
        trainer.step()
        progress("scene coordinates", trainer.done, training.steps)
    return trainer.trained_head()


@dataclass(frozen=True)
class SceneCoordinateMap:
    """A trained head; see ``peer.PeerMap``."""

    head: SceneCoordinateHead
    normalisation: Normalisation
    encoder: Encoder
    context: bool = True  # whether the head looks at it

    @property
    def bytes(self) -> int:
        """Weights in half precision."""
        return 2 * sum(value.numel() for value in self.head.state_dict().values())

    def localize(self, image: np.ndarray, camera: Camera) -> PeerResult:
        """PnP on the predicted points."""
        stages = Stages()
        tokens, grid = encoded(self.encoder, image, camera, stages)
        with stages("head"), torch.inference_mode():
            context = tokens.context if self.context else _no_context(tokens.context)
            points = self.points(tokens.patches[0], context, torch.from_numpy(np.array(grid.rays)).float())
        with stages("solve"):
            pose = pose_from_points(grid.rays[grid.valid], points[grid.valid], grid.camera.fx, _PNP_PX)
        return PeerResult(pose, stages.ms)

    def points(self, patches: Tensor, context: Tensor, camera_rays: Tensor) -> np.ndarray:
        """(P, 3) world points, metres, of one image's (P, D) tokens, (1, C) context and (P, 3) camera rays."""
        normalised = self.head(patches.float(), context.float(), camera_rays)
        return (normalised.double() * self.normalisation.radius + self.normalisation.origin).numpy()


def _no_context(context: Tensor) -> Tensor:
    """(V, 1) zeros in place of (V, C) contexts."""
    return torch.zeros_like(context[:, :1])


def build(mapped: Mapped, progress: ProgressCallback, context: bool = False) -> SceneCoordinateMap:
    """Train on the mapped images' features; ``context`` adds the images' global context to their patches."""
    data = mapped.features()
    if not context:
        data = replace(data, context=_no_context(data.context))
    normalisation = Normalisation.of(data.centres[: len(mapped.recording.frames)])
    training = PRESETS["cpu"].training.changed(steps=mapped.steps)
    with mapped.timed("training"):
        head = train(data, normalisation, mapped.focal, training, progress)
    return SceneCoordinateMap(head, normalisation, mapped.encoder, context)
