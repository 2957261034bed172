"""The network: prepared images and their camera rays in, world rays out; run by PyTorch or by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from dimm_ros.config import EncoderConfig
from dimm_ros.encoder.patches import PatchGrid, fit, normalise
from dimm_ros.encoder.weights import Weights
from dimm_ros.estimate import Observation
from dimm_ros.geometry.camera import Camera
from dimm_ros.head.model import Rays
from dimm_ros.landmarks.keypoints import KeypointLevels
from dimm_ros.runtime.clock import Clock


@dataclass(frozen=True)
class Prepared:
    """An image as the network takes it.

    Attributes:
        pixels: (3, h, w) float32, of the encoder's input size, normalised.
        grid: its patches and their camera rays.
        stage_ms: time that it took: prepare, and keypoints where there are any.
        keypoints: of the image, on two levels; None where nobody asks for them.
    """

    pixels: np.ndarray
    grid: PatchGrid
    stage_ms: dict[str, float]
    keypoints: KeypointLevels | None = None


@dataclass(frozen=True)
class NetworkOutput:
    """Output of the network for a batch of B images.

    Attributes:
        context: (B, C) global contexts.
        cls: (B, W) CLS tokens.
        rays: of each image, the world rays of its grid's valid patches, in the map's normalised frame.
        stage_ms: time of encode and head, milliseconds, of the whole batch.
    """

    context: Tensor
    cls: Tensor
    rays: list[Rays]
    stage_ms: dict[str, float]


@runtime_checkable
class Network(Protocol):
    """Encoder and head of one map.

    Attributes:
        config: the encoder's configuration.
        weights: the encoder's, with their digest.
        device: where rays and tokens are put.
    """

    config: EncoderConfig
    weights: Weights
    device: torch.device

    def predict(self, pixels: Tensor, grids: Sequence[PatchGrid]) -> NetworkOutput:
        """Context, CLS tokens and rays of B images of one size.

        Args:
            pixels: (B, 3, h, w) float images normalised by ``patches.normalise``; h and w are multiples of 14.
            grids: of each image.
        """


def prepare(image: np.ndarray, camera: Camera, grid: PatchGrid) -> Prepared:
    """Resize, cut and normalise an (H, W, 3) uint8 RGB image of ``camera``.

    Raises:
        InputError: the image's size is not the camera's, or it is not RGB uint8.
    """
    clock = Clock(torch.device("cpu"))
    with clock("prepare"):
        pixels = normalise(fit(image, camera, grid))
    return Prepared(pixels, grid, clock.stages)


def observe(network: Network, images: Sequence[Prepared]) -> list[Observation]:
    """Predict the rays of images, in their order; those of one size are one batch, and share its time evenly."""
    batches: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(images):
        batches.setdefault(image.pixels.shape, []).append(index)
    found: dict[int, Observation] = {}
    for members in batches.values():
        batch = [images[index] for index in members]
        clock = Clock(network.device)
        with clock("prepare"):
            arrays = [image.pixels for image in batch]
            pixels = torch.from_numpy(arrays[0][None] if len(arrays) == 1 else np.stack(arrays))
        predicted = network.predict(pixels, [image.grid for image in batch])
        share = {stage: ms / len(batch) for stage, ms in (clock.stages | predicted.stage_ms).items()}
        for row, (index, image) in enumerate(zip(members, batch, strict=True)):
            found[index] = Observation(
                grid=image.grid,
                rays=predicted.rays[row],
                context=predicted.context[row],
                cls=predicted.cls[row],
                stage_ms=image.stage_ms | share | {"prepare": image.stage_ms["prepare"] + share["prepare"]},
                keypoints=image.keypoints,
            )
    return [found[index] for index in range(len(images))]


@lru_cache(maxsize=32)
def on_device(grid: PatchGrid, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of the valid patches, their (N, 3) rays in float32 and float64: kept, since an upload waits for a GPU."""
    valid = torch.from_numpy(np.flatnonzero(grid.valid)).to(device)
    rays = torch.from_numpy(np.array(grid.rays)).to(device)[valid]
    return valid, rays.float(), rays
