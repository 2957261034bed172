"""Direct pose regression (the method of PoseNet, ICCV 2015) on the product's own tokens: the image's global context to
one pose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.peers.peer import Mapped, PeerResult, Stages, encoded
from dimm_ros.config import PRESETS, TrainingConfig
from dimm_ros.encoder.dinov2 import Encoder
from dimm_ros.geometry.camera import Camera
from dimm_ros.geometry.poses import make_pose
from dimm_ros.head.global_pose import nearest_rotations
from dimm_ros.mapping.trainer import Normalisation, learning_rate
from dimm_ros.mapping.training_views import TrainingViews
from dimm_ros.progress import ProgressCallback

NAME = "pose_regression"
TITLE = "direct pose regression (network on the same global context)"
NEEDS = ()

_VIEWS = 256  # in a batch
_NOISE, _DROPOUT = 0.1, 0.1  # of the context: noise in standard deviations, and share of entries left out


class PoseNetwork(nn.Module):
    """Two hidden layers from a standardised context to centre and rotation.

    Args:
        context: (V, C) of the views, for their mean and deviation.
        width: of the hidden layers.
    """

    def __init__(self, context: Tensor, width: int = 512) -> None:
        super().__init__()
        self.register_buffer("mean", context.mean(dim=0))
        self.register_buffer("std", context.std(dim=0).clamp_min(1e-3))
        sizes = (context.shape[1], width, width)
        layers = [
            part
            for size, after in zip(sizes, sizes[1:], strict=False)
            for part in (nn.Linear(size, after), nn.LayerNorm(after), nn.GELU())
        ]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 12))

    def raw(self, context: Tensor) -> Tensor:
        """(V, 12) centres in the normalised frame and rotations, row by row and not yet orthogonal."""
        return self.layers((context - self.mean) / self.std)

    def forward(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """(V, 3, 3) rotations world_from_camera and (V, 3) centres in the normalised frame."""
        out = self.raw(context)
        return nearest_rotations(out[:, 3:].reshape(-1, 3, 3)), out[:, :3]


def train(
    data: TrainingViews, normalisation: Normalisation, training: TrainingConfig, progress: ProgressCallback
) -> PoseNetwork:
    """A network trained on a feature buffer's contexts with the head's schedule and noise and dropout on the
    context.
    """
    torch.manual_seed(training.seed)
    network = PoseNetwork(data.context.float())
    optimiser = torch.optim.AdamW(network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)
    centres = ((data.centres - normalisation.origin) / normalisation.radius).float()
    rotations = data.rotations.float().flatten(1)
    for step in range(training.steps):
        drawn = torch.randint(len(centres), (_VIEWS,))
        context = data.context[drawn].float()
        context = context + torch.randn_like(context) * network.std * _NOISE
        context = torch.where(torch.rand_like(context) < _DROPOUT, network.mean, context)
        out = network.raw(context)
        loss = (out[:, :3] - centres[drawn]).norm(dim=1).mean() + (out[:, 3:] - rotations[drawn]).norm(dim=1).mean()
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, training)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        progress("pose regression", step + 1, training.steps)
    return network.eval()


@dataclass(frozen=True)
class RegressionMap:
    """A trained network; see ``peer.PeerMap``."""

    network: PoseNetwork
    normalisation: Normalisation
    encoder: Encoder

    @property
    def bytes(self) -> int:
        """Weights in half precision."""
        return 2 * sum(value.numel() for value in self.network.state_dict().values())

    def localize(self, image: np.ndarray, camera: Camera) -> PeerResult:
        """One pass of the network; it never gives up."""
        stages = Stages()
        tokens, _ = encoded(self.encoder, image, camera, stages)
        with stages("head"), torch.inference_mode():
            rotations, centres = self.network(tokens.context.float())
            centre = centres[0].double() * self.normalisation.radius + self.normalisation.origin
            pose = make_pose(rotations[0].double().numpy(), centre.numpy())
        return PeerResult(pose, stages.ms)


def build(mapped: Mapped, progress: ProgressCallback) -> RegressionMap:
    """Train on the mapped images' contexts."""
    data = mapped.features()
    normalisation = Normalisation.of(data.centres[: len(mapped.recording.frames)])
    with mapped.timed("training"):
        network = train(data, normalisation, PRESETS["cpu"].training.changed(steps=mapped.steps), progress)
    return RegressionMap(network, normalisation, mapped.encoder)
