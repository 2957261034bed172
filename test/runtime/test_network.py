"""Batches of images by their size, whatever network runs them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dimm_ros.encoder.dinov2 import Encoder
from dimm_ros.encoder.patches import PatchGrid, patch_grid
from dimm_ros.errors import InputError
from dimm_ros.geometry.camera import Camera
from dimm_ros.head.model import Rays
from dimm_ros.localizer import Localizer
from dimm_ros.runtime.network import Network, NetworkOutput, observe, prepare
from dimm_ros.runtime.torch_network import TorchNetwork
from dimm_ros.scene_map import SceneMap

CAMERA = Camera(width=56, height=28, fx=40.0, fy=40.0, cx=27.5, cy=13.5)


class Counting:
    """A network whose rays' moments are the mean of the image's pixels; it keeps the shapes of its batches."""

    def __init__(self, config=None, weights=None) -> None:
        self.config, self.weights, self.device = config, weights, torch.device("cpu")
        self.batches: list[tuple[int, ...]] = []

    def predict(self, pixels: Tensor, grids: Sequence[PatchGrid]) -> NetworkOutput:
        self.batches.append(tuple(pixels.shape))
        means = pixels.mean(dim=(1, 2, 3))
        rays = []
        for grid, mean in zip(grids, means, strict=True):
            directions = torch.ones(int(grid.valid.sum()), 3)
            rays.append(Rays(directions=directions, moments=mean.expand_as(directions)))
        return NetworkOutput(
            context=means[:, None], cls=means[:, None], rays=rays, stage_ms={"encode": 6.0, "head": 3.0}
        )


def image(value: int, camera: Camera = CAMERA) -> np.ndarray:
    return np.full((camera.height, camera.width, 3), value, np.uint8)


def test_images_of_one_size_are_one_batch_and_come_back_in_their_order() -> None:
    square = CAMERA.cropped(0, 0, 28, 28)
    cameras = [CAMERA, square, CAMERA, CAMERA]
    images = [
        prepare(image(50 * number, camera), camera, patch_grid(camera, camera.width))
        for number, camera in enumerate(cameras)
    ]
    network = Counting()
    seen = observe(network, images)
    assert network.batches == [(3, 3, 28, 56), (1, 3, 28, 28)]
    assert [each.grid for each in seen] == [each.grid for each in images]
    for each, prepared in zip(seen, images, strict=True):
        mean = float(prepared.pixels.mean())
        assert each.context.tolist() == each.cls.tolist() == pytest.approx([mean], abs=1e-5)
        assert float(each.rays.moments[0, 0]) == pytest.approx(mean, abs=1e-5)
    assert [each.stage_ms["encode"] for each in seen] == [2.0, 6.0, 2.0, 2.0]
    assert [each.stage_ms["head"] for each in seen] == [1.0, 3.0, 1.0, 1.0]
    assert all(
        each.stage_ms["prepare"] > prepared.stage_ms["prepare"] > 0 for each, prepared in zip(seen, images, strict=True)
    )


def test_an_image_that_is_not_the_cameras_is_not_prepared() -> None:
    with pytest.raises(InputError, match="56x20 but camera_info says 56x28"):
        prepare(image(0)[:20], CAMERA, patch_grid(CAMERA, 56))


def test_any_network_serves_a_localizer(small_map: Path, encoder: Encoder) -> None:
    scene_map = SceneMap.load(small_map)
    network = Counting(encoder.config, encoder.weights)
    assert all(isinstance(each, Network) for each in (network, TorchNetwork(encoder, scene_map.head)))
    assert not isinstance(encoder, Network)
    estimate = Localizer(scene_map, network).localize(image(100), CAMERA)
    assert network.batches == [(1, 3, 112, 224)] and not estimate.accepted and estimate.rays == 8 * 16
