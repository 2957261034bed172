"""Focal length of an uncalibrated camera: the search with predictors that are known, and the whole way with a small
map.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dimm_ros.data.open import open_recording
from dimm_ros.encoder.dinov2 import Encoder
from dimm_ros.errors import InputError
from dimm_ros.geometry.poses import exp_so3 as exp_vector
from dimm_ros.geometry.poses import pose_errors
from dimm_ros.localizer import Localizer
from dimm_ros.mapping.calibrate import focal_bias
from dimm_ros.mapping.training_views import TrainingViews
from dimm_ros.scene_map import SceneMap
from dimm_ros.solver import refine_focal, search_focal
from dimm_ros.solver.rays import exp_so3
from dimm_ros.uncalibrated import encode_image, estimate_camera, find_focal, square_camera

CANDIDATES = np.geomspace(250, 1400, 7).tolist()
property_test = settings(max_examples=20, deadline=None)


def predictor(
    pixels: Tensor,
    focal: float,
    generator: torch.Generator,
    told: float = 0.6,
    noise: float = 0.0,
    outliers: float = 0.0,
) -> Callable[[float], Tensor]:
    """A head that believes what it is told about its camera with a share, and what it sees for the rest."""
    turn = exp_so3(2 * torch.randn(3, generator=generator, dtype=torch.float64))
    error = noise * torch.randn((len(pixels), 3), generator=generator, dtype=torch.float64)
    wild = torch.nn.functional.normalize(torch.randn((len(pixels), 3), generator=generator, dtype=torch.float64), dim=1)
    is_wild = torch.rand(len(pixels), generator=generator) < outliers

    def predict(guess: float) -> Tensor:
        believed = guess**told * focal ** (1 - told)
        rays = torch.cat([pixels, torch.full_like(pixels[:, :1], believed)], dim=1)
        directions = torch.nn.functional.normalize(rays, dim=1) @ turn.T + error
        return torch.where(is_wild[:, None], wild, directions)

    return predict


def pixel_grid() -> Tensor:
    y, x = torch.meshgrid(torch.arange(-230.0, 231, 20), torch.arange(-310.0, 311, 20), indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1).double()


@property_test
@given(seed=st.integers(0, 2**31 - 1), focal=st.floats(300, 1200), told=st.sampled_from([0.0, 0.6, 0.8]))
def test_the_search_ends_at_the_truth(seed: int, focal: float, told: float) -> None:
    pixels, generator = pixel_grid(), torch.Generator().manual_seed(seed)
    assert search_focal(predictor(pixels, focal, generator, told), pixels, CANDIDATES) == pytest.approx(focal, rel=3e-3)


@property_test
@given(seed=st.integers(0, 2**31 - 1), focal=st.floats(300, 1200))
def test_noise_and_outliers_move_it_little(seed: int, focal: float) -> None:
    pixels, generator = pixel_grid(), torch.Generator().manual_seed(seed)
    predict = predictor(pixels, focal, generator, noise=math.radians(1.0), outliers=0.3)
    assert search_focal(predict, pixels, CANDIDATES) == pytest.approx(focal, rel=0.04)


@pytest.mark.parametrize("focal", [100.0, 5000.0])
def test_a_focal_length_out_of_range_is_one_sentence(focal: float) -> None:
    pixels = pixel_grid()
    with pytest.raises(InputError, match="No focal length between 250 and 1400 pixels"):
        search_focal(predictor(pixels, focal, torch.Generator().manual_seed(0), told=0.2), pixels, CANDIDATES)


def test_rays_of_nowhere_have_no_focal_length() -> None:
    pixels = pixel_grid()
    with pytest.raises(InputError, match="does not show the mapped place"):
        search_focal(lambda focal: torch.zeros(len(pixels), 3), pixels, CANDIDATES)


class KnowingHead(torch.nn.Module):
    """Its patch tokens are the true camera rays; it draws its directions together by a factor."""

    def __init__(self, drawn: float = 1.0, told: float = 0.6) -> None:
        super().__init__()
        self.drawn, self.told = drawn, told
        self.register_parameter("none", torch.nn.Parameter(torch.zeros(1)))

    def alone(self, context: Tensor) -> KnowingHead:
        return self

    def forward(self, patches: Tensor, context: Tensor, camera_rays: Tensor) -> SimpleNamespace:
        true, guessed = (rays.double()[:, :2] / rays.double()[:, 2:] for rays in (patches, camera_rays))
        scale = (guessed.norm() / true.norm()) ** self.told / self.drawn
        rays = torch.cat([scale * true, torch.ones_like(true[:, :1])], dim=1)
        turn = exp_so3(torch.tensor([0.5, -1.0, 0.3], dtype=torch.float64))
        return SimpleNamespace(directions=torch.nn.functional.normalize(rays, dim=1) @ turn.T)


@pytest.mark.parametrize("drawn", [1.0, 1.03])
def test_the_bias_of_a_head_is_found_on_views_with_known_cameras(drawn: float) -> None:
    rays = torch.cat([pixel_grid() / 500.0, torch.ones(len(pixel_grid()), 1)], dim=1)
    rays = torch.nn.functional.normalize(rays, dim=1).float()
    views = TrainingViews(
        view_of=torch.arange(3).repeat_interleave(len(rays)).int(),
        frame_of=torch.arange(3),
        context=torch.zeros(3, 4),
        camera_rays=rays.repeat(3, 1),
        patches=rays.repeat(3, 1),
        directions=rays.repeat(3, 1),
        centres=torch.zeros(3, 3),
        rotations=torch.eye(3).repeat(3, 1, 1),
    )
    # what it sees counts 0.4, so an error of its directions is multiplied by 1 / 0.4
    assert focal_bias(KnowingHead(drawn), views, [0, 1, 2]) == pytest.approx(drawn**2.5, rel=2e-3)
    assert focal_bias(KnowingHead(drawn), views, [0, 1]) == 1.0


@pytest.fixture(scope="module")
def localizer(small_map: Path, encoder: Encoder) -> Localizer:
    return Localizer(SceneMap.load(small_map), encoder)


def test_the_global_pose_part_has_no_say(localizer: Localizer, walk: Path) -> None:
    """It agrees with any focal length, so it would only flatten the search."""
    frame = open_recording(walk).frames[4]
    tokens = encode_image(localizer.encoder, frame.load())
    assert localizer.map.head.whole is not None and localizer.map.head.alone().whole is None
    alone = SceneMap(localizer.map.header, localizer.map.head.alone())
    assert find_focal(localizer.map, tokens, frame.load().shape) == find_focal(alone, tokens, frame.load().shape)


def test_the_camera_of_mapped_images(localizer: Localizer, walk: Path) -> None:
    """A map of seconds, without zoomed views: it knows its own images, whose true focal length is 150."""
    frames = open_recording(walk).frames
    camera = estimate_camera(localizer.map, localizer.encoder, [frame.load() for frame in frames[::4]])
    assert (camera.width, camera.height, camera.cx, camera.cy) == (224, 168, 111.5, 83.5) and camera.fx == camera.fy
    assert camera.fx == pytest.approx(150.0, rel=0.02)

    estimate, own = localizer.localize_unknown_focal(frames[8].load())
    assert own.fx == pytest.approx(150.0, rel=0.1)
    again = localizer.localize(frames[8].load(), own)
    np.testing.assert_allclose(estimate.world_from_camera, again.world_from_camera, atol=1e-6)
    assert list(estimate.stage_ms) == ["prepare", "encode", "head", "solve", "total"]
    distance, angle = pose_errors(estimate.world_from_camera, frames[8].world_from_camera)
    assert estimate.accepted and distance < 0.15 and angle < 4.0


def test_landmarks_refine_the_focal_length(localizer: Localizer, landmark_map: Path, other_walk: Path) -> None:
    """On another walk rays are off by a few per cent; landmarks fix focal length and pose together."""
    frames = open_recording(other_walk).frames[::3]
    with_landmarks = Localizer(SceneMap.load(landmark_map), localizer.encoder)
    off = {"rays": [], "landmarks": []}
    for frame in frames[1:]:  # of the first, the rays find no focal length from which landmarks could begin
        for name, each in (("rays", localizer), ("landmarks", with_landmarks)):
            estimate, camera = each.localize_unknown_focal(frame.load())
            off[name].append(
                (abs(camera.fx / 150.0 - 1), pose_errors(estimate.world_from_camera, frame.world_from_camera)[0])
            )
    rays, landmarks = np.median(off["rays"], axis=0), np.median(off["landmarks"], axis=0)
    assert landmarks[0] < 0.03 and landmarks[0] < 0.5 * rays[0]
    assert landmarks[1] < 0.06 and landmarks[1] < 0.5 * rays[1]


def test_a_focal_length_and_a_pose_from_points() -> None:
    rng = np.random.default_rng(3)
    rotation, centre = exp_vector(np.array([0.3, -0.2, 0.1])), np.array([0.5, -0.3, 0.2])
    camera_points = rng.uniform([-1, -1, 2], [1, 1, 6], (80, 3))
    pixels = 500.0 * camera_points[:, :2] / camera_points[:, 2:] + 0.3 * rng.normal(size=(80, 2))
    pixels[:12] += rng.uniform(-80, 80, (12, 2))
    points, near = camera_points @ rotation.T + centre, exp_vector(np.array([0.01, 0.0, -0.01])) @ rotation
    assert refine_focal(pixels, points, near, centre + 0.1, 530.0) == pytest.approx(500.0, rel=0.005)
    assert refine_focal(pixels[:10], points[:10], near, centre, 530.0) == 530.0  # too few
    # never far
    assert refine_focal(pixels[rng.permutation(80)], points, near, centre, 530.0) == pytest.approx(530.0, rel=0.35)


def test_images_that_cannot_be_of_one_camera(localizer: Localizer) -> None:
    image = np.zeros((168, 224, 3), np.uint8)
    with pytest.raises(InputError, match="No image was given"):
        estimate_camera(localizer.map, localizer.encoder, [])
    with pytest.raises(InputError, match="Images of one camera have one size"):
        estimate_camera(localizer.map, localizer.encoder, [np.full_like(image, 127), image[:100]])
    for wrong in (image[..., 0], image.astype(float)):
        with pytest.raises(InputError, match="uint8 RGB is needed"):
            localizer.localize_unknown_focal(wrong)


def test_a_square_camera_looks_through_the_middle_of_its_image() -> None:
    camera = square_camera(640, 480, 500.0)
    rays, _ = camera.bearings(np.array([[319.5, 239.5]]))
    np.testing.assert_allclose(rays, [[0, 0, 1]])
