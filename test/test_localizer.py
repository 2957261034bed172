"""The localizer: one image in, one judged pose out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dimm_ros.config import AcceptanceConfig, SolverConfig
from dimm_ros.data.open import open_recording
from dimm_ros.data.recording import Frame
from dimm_ros.encoder.dinov2 import Encoder
from dimm_ros.encoder.patches import patch_grid
from dimm_ros.errors import InputError
from dimm_ros.geometry.camera import Camera
from dimm_ros.geometry.poses import pose_errors
from dimm_ros.localizer import Estimate, Localizer
from dimm_ros.scene_map import Calibration, SceneMap


@pytest.fixture(scope="module")
def scene_map(small_map: Path) -> SceneMap:
    return SceneMap.load(small_map)


@pytest.fixture(scope="module")
def localizer(scene_map: SceneMap, encoder: Encoder) -> Localizer:
    return Localizer(scene_map, encoder)


@pytest.fixture(scope="module")
def frames(walk: Path) -> Sequence[Frame]:
    return open_recording(walk).frames


def assert_usable(estimate: Estimate) -> None:
    """A rigid pose and a finite, symmetric, positive definite covariance: what filters need of any answer."""
    rotation = estimate.world_from_camera[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    np.testing.assert_array_equal(estimate.world_from_camera[3], [0, 0, 0, 1])
    assert np.isfinite(estimate.world_from_camera).all()
    assert estimate.covariance.shape == (6, 6) and np.isfinite(estimate.covariance).all()
    np.testing.assert_allclose(estimate.covariance, estimate.covariance.T, rtol=1e-9)
    assert np.linalg.eigvalsh(estimate.covariance).min() > 0
    assert 0 <= estimate.inliers <= estimate.rays and 0.0 <= estimate.inlier_ratio <= 1.0
    assert estimate.accepted == (estimate.reason == "")


def test_an_image_of_the_walk(localizer: Localizer, frames: Sequence[Frame]) -> None:
    frame = frames[8]
    estimate = localizer.localize(frame.load(), frame.camera)
    assert estimate.accepted and estimate.reason == ""
    assert_usable(estimate)
    distance, angle = pose_errors(estimate.world_from_camera, frame.world_from_camera)
    assert distance < 0.1 and angle < 4.0
    assert localizer.frame_id == "map" and localizer.name == "gallery"
    assert estimate.rays == 16 * 12 and estimate.inlier_ratio == estimate.inliers / estimate.rays
    assert estimate.cls.shape == (localizer.encoder.cls_dim,) and estimate.cls.dtype == np.float32
    assert estimate.angle_residual_deg.shape == estimate.centre_residual.shape == (12, 16)
    agreeing = (estimate.angle_residual_deg < 9.0) & (estimate.centre_residual < 0.3)  # thresholds at the end of the confidence range
    assert np.count_nonzero(agreeing) >= estimate.inliers


def test_the_same_image_gives_the_same_answer(localizer: Localizer, frames: Sequence[Frame]) -> None:
    image, camera = frames[3].load(), frames[3].camera
    one = localizer.localize(image, camera)
    localizer.localize(frames[20].load(), camera)  # nothing is remembered from one image to the next
    other = localizer.localize(image.copy(), replace(camera))
    np.testing.assert_array_equal(one.world_from_camera, other.world_from_camera)
    np.testing.assert_array_equal(one.covariance, other.covariance)
    assert (one.inliers, one.reason) == (other.inliers, other.reason)


def test_every_stage_is_timed(localizer: Localizer, frames: Sequence[Frame]) -> None:
    localizer.warm_up(frames[0].camera)
    times = localizer.localize(frames[0].load(), frames[0].camera).stage_ms
    assert list(times) == ["prepare", "encode", "head", "solve", "total"]
    assert all(value > 0 for value in times.values())
    assert times["total"] == pytest.approx(sum(value for stage, value in times.items() if stage != "total"))


def test_the_pose_is_in_the_maps_frame(localizer: Localizer, frames: Sequence[Frame]) -> None:
    """Moving a map's origin moves its answers by as much, and changes nothing else."""
    header, shift = localizer.map.header, np.array([100.0, -20.0, 3.0])
    moved = SceneMap(header.model_copy(update={"origin": tuple(np.add(header.origin, shift))}), localizer.map.head)
    image, camera = frames[8].load(), frames[8].camera
    here, there = (Localizer(of, localizer.encoder).localize(image, camera) for of in (localizer.map, moved))
    np.testing.assert_allclose(there.world_from_camera[:3, 3], here.world_from_camera[:3, 3] + shift, atol=1e-9)
    np.testing.assert_array_equal(there.world_from_camera[:3, :3], here.world_from_camera[:3, :3])
    np.testing.assert_array_equal(there.covariance, here.covariance)


def test_calibration_scales_standard_deviations(localizer: Localizer, frames: Sequence[Frame]) -> None:
    def calibrated(position: float, rotation: float) -> np.ndarray:
        calibration = Calibration(position_factor=position, rotation_factor=rotation)
        header = localizer.map.header.model_copy(update={"calibration": calibration})
        answer = Localizer(SceneMap(header, localizer.map.head), localizer.encoder).localize(frames[8].load(), frames[8].camera)
        return answer.covariance

    plain, scaled = calibrated(1.0, 1.0), calibrated(2.0, 5.0)
    np.testing.assert_allclose(scaled[:3, :3], 4.0 * plain[:3, :3], rtol=1e-12)
    np.testing.assert_allclose(scaled[3:, 3:], 25.0 * plain[3:, 3:], rtol=1e-12)
    np.testing.assert_allclose(scaled[:3, 3:], 10.0 * plain[:3, 3:], rtol=1e-12)


@pytest.mark.parametrize(("rule", "sentence"), [
    ({"min_inlier_ratio": 1.0}, r"Only \d+% of the rays agree \(at least 100% must\): the view is probably not of this map\."),
    ({"max_position_sigma": 1e-9}, r"The position is uncertain by \d+\.\d\d m \(at most 1e-09 m is accepted\)\."),
    ({"max_rotation_sigma_deg": 1e-9}, r"The rotation is uncertain by \d+\.\d deg \(at most 1e-09 deg is accepted\)\."),
])
def test_each_rule_of_acceptance_rejects_with_its_sentence(
    localizer: Localizer, frames: Sequence[Frame], rule: dict[str, float], sentence: str,
) -> None:
    image, camera = frames[8].load(), frames[8].camera
    strict = Localizer(localizer.map, localizer.encoder, acceptance=AcceptanceConfig(**rule)).localize(image, camera)
    assert not strict.accepted and re.fullmatch(sentence, strict.reason)
    # What is rejected still carries its pose.
    np.testing.assert_array_equal(strict.world_from_camera, localizer.localize(image, camera).world_from_camera)


def test_an_infinite_covariance_is_rejected(localizer: Localizer, frames: Sequence[Frame]) -> None:
    header = localizer.map.header.model_copy(update={"calibration": Calibration(position_factor=float("inf"))})
    answer = Localizer(SceneMap(header, localizer.map.head), localizer.encoder).localize(frames[8].load(), frames[8].camera)
    assert not answer.accepted and answer.reason == "The pose's covariance is not finite: the rays do not fix it."


def test_rays_that_meet_nowhere_are_rejected_with_the_solvers_sentence(localizer: Localizer, frames: Sequence[Frame]) -> None:
    solver = SolverConfig(centre_threshold=1e-7)
    answer = Localizer(localizer.map, localizer.encoder, solver=solver).localize(frames[8].load(), frames[8].camera)
    assert not answer.accepted and "rays meet in a point within 1e-07 m; a pose needs at least 3" in answer.reason
    assert_usable(answer)


@pytest.mark.parametrize("image", [
    np.random.default_rng(0).integers(0, 256, (168, 224, 3), dtype=np.uint8),
    np.zeros((168, 224, 3), np.uint8),
    np.full((168, 224, 3), 255, np.uint8),
], ids=["noise", "black", "white"])
def test_an_image_of_nothing_is_rejected(localizer: Localizer, frames: Sequence[Frame], image: np.ndarray) -> None:
    answer = localizer.localize(image, frames[0].camera)
    assert_usable(answer)
    assert not answer.accepted and answer.reason.endswith(".")


def test_an_image_of_another_size_is_refused(localizer: Localizer, frames: Sequence[Frame]) -> None:
    frame = frames[0]
    with pytest.raises(InputError, match="224x168 but camera_info says 640x480; publish the camera_info of this stream"):
        localizer.localize(frame.load(), Camera(640, 480, 525, 525, 320, 240))
    with pytest.raises(InputError, match="uint8 RGB is needed"):
        localizer.localize(frame.load()[..., 0], frame.camera)


# Up to 30 degrees from the axis these bend rays by less than half a degree; towards the corners, 43 degrees away, they fold.
@pytest.mark.parametrize(("model", "distortion"), [
    ("plumb_bob", (0.0, 0.0, 0.0, 0.0, -0.5)),
    ("equidistant", (1 / 3, 2 / 15, 0.0, -9.6)),
])
def test_patches_that_the_lens_cannot_explain_are_left_out(
    localizer: Localizer, frames: Sequence[Frame], model: str, distortion: tuple[float, ...],
) -> None:
    frame = frames[8]
    folding = replace(frame.camera, distortion_model=model, distortion=distortion)
    valid = patch_grid(folding, localizer.encoder.config.input_size).valid.reshape(12, 16)
    assert not valid[0, 0] and not valid[-1, -1] and valid[6, 8] and valid.mean() > 0.4
    answer = localizer.localize(frame.load(), folding)
    assert answer.rays == valid.sum()
    np.testing.assert_array_equal(np.isnan(answer.angle_residual_deg), ~valid)
    np.testing.assert_array_equal(np.isnan(answer.centre_residual), ~valid)
    assert_usable(answer)
    distance, angle = pose_errors(answer.world_from_camera, frame.world_from_camera)
    assert distance < 0.1 and angle < 4.0


def test_a_view_through_no_lens_at_all_is_rejected(localizer: Localizer, frames: Sequence[Frame]) -> None:
    """All patches masked: no ray is left, and that is said."""
    frame = frames[8]
    nothing = Camera(224, 168, 40.0, 40.0, -2000.0, 83.5, "equidistant", (-0.1, 0.0, 0.0, 0.0))
    answer = localizer.localize(frame.load(), nothing)
    assert answer.rays == 0 and answer.inlier_ratio == 0.0 and not answer.accepted
    assert "gives 0 rays; a pose needs at least 3" in answer.reason
    assert_usable(answer)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_agrees_with_the_cpu(small_map: Path, localizer: Localizer, encoder: Encoder, frames: Sequence[Frame]) -> None:
    on_gpu = Localizer.open(small_map, device="cuda", weights=encoder.weights.path)
    image, camera = frames[8].load(), frames[8].camera
    one, other = localizer.localize(image, camera), on_gpu.localize(image, camera)
    assert other.accepted
    assert_usable(other)
    distance, angle = pose_errors(one.world_from_camera, other.world_from_camera)
    assert distance < 0.02 and angle < 1.0  # the GPU's encoder runs in half precision
