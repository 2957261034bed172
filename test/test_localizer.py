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
from dimm_ros.geometry.covariance import lever
from dimm_ros.geometry.poses import exp_so3, invert, make_pose, pose_errors
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
    # thresholds at the end of the confidence range
    agreeing = (estimate.angle_residual_deg < 9.0) & (estimate.centre_residual < 0.3)
    assert np.count_nonzero(agreeing) >= estimate.inliers


def test_half_of_the_patches_tell_the_same(localizer: Localizer, frames: Sequence[Frame]) -> None:
    frame = frames[8]
    every = localizer.localize(frame.load(), frame.camera)
    half = Localizer(localizer.map, localizer.encoder, SolverConfig(rays=96)).localize(frame.load(), frame.camera)
    known = np.isfinite(half.angle_residual_deg)
    assert half.rays == known.sum() == 96 and (known == np.isfinite(half.world_rays).all(axis=-1)).all()
    np.testing.assert_allclose(half.world_rays[known], every.world_rays[known], atol=1e-5)
    distance, angle = pose_errors(half.world_from_camera, every.world_from_camera)
    assert distance < 0.02 and angle < 0.5


def test_half_of_a_rigs_patches_tell_the_same(localizer: Localizer, frames: Sequence[Frame]) -> None:
    images, cameras = loaded(frames[6:12:2])
    images[1], cameras[1] = images[1][:120], cameras[1].cropped(0, 0, 224, 120)
    poses = relative(frames[6:12:2], frames[8].world_from_camera)
    every = localizer.localize_rig(images, cameras, poses)
    half = Localizer(localizer.map, localizer.encoder, SolverConfig(rays=70)).localize_rig(images, cameras, poses)
    assert every.rays == 2 * 192 + 16 * 8 and half.rays == 2 * 64 + 64
    distance, angle = pose_errors(half.world_from_camera, every.world_from_camera)
    assert distance < 0.02 and angle < 0.5
    # Fewer rays are less alike: the covariance hardly depends on how many are asked.
    np.testing.assert_allclose(np.diag(half.covariance), np.diag(every.covariance), rtol=0.6)


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


def test_calibration_adds_what_all_rays_share(localizer: Localizer, frames: Sequence[Frame]) -> None:
    def calibrated(position: float, rotation: float) -> Estimate:
        calibration = Calibration(position_rate=position, rotation_rate_deg=rotation)
        header = localizer.map.header.model_copy(update={"calibration": calibration})
        return Localizer(SceneMap(header, localizer.map.head), localizer.encoder).localize(
            frames[8].load(), frames[8].camera
        )

    rays, shared = calibrated(0.0, 0.0), calibrated(2.0, 5.0)
    added = np.diag(
        np.repeat(np.square(Calibration(position_rate=2.0, rotation_rate_deg=5.0).sigmas(shared.novelty)), 3)
    )
    np.testing.assert_allclose(shared.covariance, rays.covariance + added, rtol=1e-9, atol=1e-18)
    assert np.linalg.eigvalsh(rays.covariance).min() > 0


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        (
            {"min_inlier_ratio": 1.0},
            r"Only \d+% of the rays agree \(at least 100% must\): the view is probably not of this map\.",
        ),
        (
            {"max_position_sigma": 1e-9},
            r"The position is uncertain by \d+\.\d\d m \(at most 1e-09 m is accepted\)\. This map tells .*\.",
        ),
        (
            {"max_rotation_sigma_deg": 1e-9},
            r"The rotation is uncertain by \d+\.\d deg \(at most 1e-09 deg is accepted\)\.",
        ),
    ],
)
def test_each_rule_of_acceptance_rejects_with_its_sentence(
    localizer: Localizer, frames: Sequence[Frame], rule: dict[str, float], sentence: str
) -> None:
    image, camera = frames[8].load(), frames[8].camera
    strict = Localizer(localizer.map, localizer.encoder, acceptance=AcceptanceConfig(**rule)).localize(image, camera)
    assert not strict.accepted and re.fullmatch(sentence, strict.reason)
    # What is rejected still carries its pose.
    np.testing.assert_array_equal(strict.world_from_camera, localizer.localize(image, camera).world_from_camera)


def test_an_infinite_covariance_is_rejected(localizer: Localizer, frames: Sequence[Frame]) -> None:
    unsure = Calibration().model_copy(update={"position_rate": float("inf")})  # no file can say so
    header = localizer.map.header.model_copy(update={"calibration": unsure})
    answer = Localizer(SceneMap(header, localizer.map.head), localizer.encoder).localize(
        frames[8].load(), frames[8].camera
    )
    assert not answer.accepted and answer.reason == "The pose's covariance is not finite: the rays do not fix it."


def test_rays_that_meet_nowhere_are_rejected_with_the_solvers_sentence(
    localizer: Localizer, frames: Sequence[Frame]
) -> None:
    solver = SolverConfig(centre_threshold=1e-7)
    answer = Localizer(localizer.map, localizer.encoder, solver=solver).localize(frames[8].load(), frames[8].camera)
    assert not answer.accepted and "rays meet in a point within 1e-07 m; a pose needs at least 3" in answer.reason
    assert_usable(answer)


@pytest.mark.parametrize(
    ("rate", "doubted"), [(0.5, False), (500.0, True), (10.0, True)]
)  # metres, millimetres, a twentieth of a metre
def test_a_map_that_cannot_be_sure_anywhere_says_so_with_every_rejection(
    localizer: Localizer, frames: Sequence[Frame], rate: float, doubted: bool
) -> None:
    header = localizer.map.header.model_copy(update={"calibration": Calibration(position_rate=rate)})
    sentence = f"This map tells even views near its own to {rate * 0.1**0.9:.2g} m only: see what 'dimm doctor' says"
    for solver in (SolverConfig(centre_threshold=1e-7), None):  # rejected by the solver; by the rules
        strict = Localizer(
            SceneMap(header, localizer.map.head), localizer.encoder, solver, AcceptanceConfig(min_inlier_ratio=1.0)
        )
        answer = strict.localize(frames[8].load(), frames[8].camera)
        assert not answer.accepted and (sentence in answer.reason) is doubted


@pytest.mark.parametrize(
    "image",
    [
        np.random.default_rng(0).integers(0, 256, (168, 224, 3), dtype=np.uint8),
        np.zeros((168, 224, 3), np.uint8),
        np.full((168, 224, 3), 255, np.uint8),
    ],
    ids=["noise", "black", "white"],
)
def test_an_image_of_nothing_is_rejected(localizer: Localizer, frames: Sequence[Frame], image: np.ndarray) -> None:
    answer = localizer.localize(image, frames[0].camera)
    assert_usable(answer)
    assert not answer.accepted and answer.reason.endswith(".")


def test_an_image_of_another_size_is_refused(localizer: Localizer, frames: Sequence[Frame]) -> None:
    frame = frames[0]
    with pytest.raises(
        InputError, match="224x168 but camera_info says 640x480; publish the camera_info of this stream"
    ):
        localizer.localize(frame.load(), Camera(640, 480, 525, 525, 320, 240))
    with pytest.raises(InputError, match="uint8 RGB is needed"):
        localizer.localize(frame.load()[..., 0], frame.camera)


# Up to 30 degrees from the axis these bend rays by less than half a degree; towards the corners, 43 degrees away, they
# fold.
@pytest.mark.parametrize(
    ("model", "distortion"), [("plumb_bob", (0.0, 0.0, 0.0, 0.0, -0.5)), ("equidistant", (1 / 3, 2 / 15, 0.0, -9.6))]
)
def test_patches_that_the_lens_cannot_explain_are_left_out(
    localizer: Localizer, frames: Sequence[Frame], model: str, distortion: tuple[float, ...]
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
def test_the_gpu_agrees_with_the_cpu(
    small_map: Path, localizer: Localizer, encoder: Encoder, frames: Sequence[Frame]
) -> None:
    on_gpu = Localizer.open(small_map, device="cuda", weights=encoder.weights.path)
    image, camera = frames[8].load(), frames[8].camera
    one, other = localizer.localize(image, camera), on_gpu.localize(image, camera)
    assert other.accepted
    assert_usable(other)
    distance, angle = pose_errors(one.world_from_camera, other.world_from_camera)
    assert distance < 0.02 and angle < 1.0  # the GPU's encoder runs in half precision


def relative(frames: Sequence[Frame], base: np.ndarray) -> list[np.ndarray]:
    """base_from_camera of frames, from their true poses."""
    return [invert(base) @ frame.world_from_camera for frame in frames]


def loaded(frames: Sequence[Frame]) -> tuple[list[np.ndarray], list[Camera]]:
    return [frame.load() for frame in frames], [frame.camera for frame in frames]


def test_observing_and_solving_is_localizing(localizer: Localizer, frames: Sequence[Frame]) -> None:
    image, camera = frames[8].load(), frames[8].camera
    whole = localizer.localize(image, camera)
    observation = localizer.observe(image, camera)
    assert list(observation.stage_ms) == ["prepare", "encode", "head"] and observation.rays.directions.shape == (
        16 * 12,
        3,
    )
    for estimate in (
        localizer.solve_window([observation], [np.eye(4)]),
        localizer.localize_rig([image], [camera], [np.eye(4)]),
    ):
        np.testing.assert_array_equal(estimate.world_from_camera, whole.world_from_camera)
        np.testing.assert_array_equal(estimate.covariance, whole.covariance)
        assert estimate.inliers == whole.inliers and estimate.image_inlier_ratios == (estimate.inlier_ratio,)


def test_the_steps_one_after_another_are_localizing(localizer: Localizer, frames: Sequence[Frame]) -> None:
    image, camera = frames[8].load(), frames[8].camera
    observations, at_base = localizer.predict(localizer.preprocess([image], [camera])), np.eye(4)[None]
    solution = localizer.solve(observations, at_base)
    estimate = localizer.accept(localizer.calibrate(solution, observations, at_base))
    whole = localizer.localize(image, camera)
    np.testing.assert_array_equal(estimate.world_from_camera, whole.world_from_camera)
    np.testing.assert_array_equal(estimate.covariance, whole.covariance)
    assert estimate.accepted and estimate.novelty == whole.novelty
    assert (estimate.inliers, estimate.rays) == (whole.inliers, whole.rays)
    covariance = solution.covariance.numpy()
    assert np.linalg.eigvalsh(estimate.covariance - covariance).min() > 0  # calibration adds what all rays share
    uncertain = localizer.accept(replace(estimate, covariance=1e4 * np.eye(6)))
    assert not uncertain.accepted and "uncertain by 100.00 m" in uncertain.reason
    assert localizer.accept(replace(estimate, reason="No pose.")).reason == "No pose."


def test_an_estimate_is_built_by_keyword() -> None:
    with pytest.raises(TypeError, match="positional"):
        Estimate(np.eye(4), np.eye(6), True, "", 3, 4)


def test_a_batch_observes_what_single_images_do(localizer: Localizer, frames: Sequence[Frame]) -> None:
    images, cameras = loaded(frames[4:7])
    # encoded apart, and put back in its place
    images[1], cameras[1] = (images[1][:120], cameras[1].cropped(0, 0, 224, 120))
    for together, image, camera in zip(localizer.observe_all(images, cameras), images, cameras, strict=True):
        alone = localizer.observe(image, camera)
        assert together.grid is alone.grid
        torch.testing.assert_close(together.rays.directions, alone.rays.directions, atol=1e-4, rtol=0)
        torch.testing.assert_close(together.rays.moments, alone.rays.moments, atol=1e-4, rtol=0)
        torch.testing.assert_close(together.context, alone.context, atol=1e-3, rtol=0)


def test_a_rig_is_localized_as_one(localizer: Localizer, frames: Sequence[Frame]) -> None:
    """Cameras of one rig: views of the walk, seen at once from a base a metre away."""
    chosen = [frames[index] for index in (2, 12, 20)]
    images, cameras = loaded(chosen)
    images[2], cameras[2] = images[2][:150], cameras[2].cropped(0, 0, 224, 150)
    base = frames[12].world_from_camera @ make_pose(exp_so3(np.array([0.3, -0.2, 0.5])), np.array([0.7, 0.5, -0.5]))
    estimate = localizer.localize_rig(images, cameras, relative(chosen, base))
    assert estimate.accepted and len(estimate.image_inlier_ratios) == 3 and estimate.rays == 2 * 16 * 12 + 16 * 10
    assert_usable(estimate)
    distance, angle = pose_errors(estimate.world_from_camera, base)
    assert distance < 0.1 and angle < 4.0
    assert estimate.angle_residual_deg.shape == estimate.centre_residual.shape == (10, 16)  # of the last image
    total = sum(estimate.stage_ms[stage] for stage in ("prepare", "encode", "head", "solve"))
    assert estimate.stage_ms["total"] == pytest.approx(total)


def test_the_base_of_a_rig_is_where_it_is_said_to_be(localizer: Localizer, frames: Sequence[Frame]) -> None:
    """One camera on a base: the camera's own answer, carried to the base with its covariance."""
    image, camera = frames[8].load(), frames[8].camera
    mount = make_pose(exp_so3(np.array([0.5, 1.0, -0.4])), np.array([0.3, -0.2, 0.6]))
    alone, rig = localizer.localize(image, camera), localizer.localize_rig([image], [camera], [mount])
    np.testing.assert_allclose(rig.world_from_camera, alone.world_from_camera @ invert(mount), atol=1e-5)
    carry = lever(rig.world_from_camera[:3, 3] - alone.world_from_camera[:3, 3])
    sigma = np.sqrt(np.diag(rig.covariance))
    assert (np.abs(rig.covariance - carry @ alone.covariance @ carry.T) < 1e-3 * np.outer(sigma, sigma)).all()


def test_a_window_of_frames(localizer: Localizer, frames: Sequence[Frame]) -> None:
    window = frames[4:9]
    images, cameras = loaded(window)
    poses = relative(window, window[-1].world_from_camera)
    estimate = localizer.localize_window(images, cameras, poses)
    assert estimate.accepted and len(estimate.image_inlier_ratios) == 5 and estimate.rays == 5 * 16 * 12
    assert_usable(estimate)
    distance, angle = pose_errors(estimate.world_from_camera, window[-1].world_from_camera)
    assert distance < 0.08 and angle < 3.0
    again = localizer.solve_window(localizer.observe_all(images, cameras), poses)
    np.testing.assert_allclose(again.world_from_camera, estimate.world_from_camera, atol=1e-9)
    assert again.stage_ms["encode"] < estimate.stage_ms["encode"]  # the newest image's; the others were encoded before


def test_the_same_image_again_makes_no_pose_more_certain(localizer: Localizer, frames: Sequence[Frame]) -> None:
    observation = localizer.observe(frames[8].load(), frames[8].camera)
    one = localizer.solve_window([observation], [np.eye(4)])
    five = localizer.solve_window([observation] * 5, [np.eye(4)] * 5)
    np.testing.assert_allclose(np.diag(five.covariance), np.diag(one.covariance), rtol=0.1)
    apart = [frames[index] for index in (0, 6, 12, 17, 23)]
    spread = localizer.solve_window(localizer.observe_all(*loaded(apart)), relative(apart, apart[-1].world_from_camera))
    rotation = np.diag(spread.covariance)[3:] / np.diag(one.covariance)[3:]
    assert rotation.mean() < 0.5  # other views do; by how much depends on how well each agrees


def test_a_window_that_the_newest_image_contradicts_is_left_out(localizer: Localizer, frames: Sequence[Frame]) -> None:
    """Carried away without odometry noticing: four images of one place and one of another, said to be of the same."""
    window = [frames[index] for index in (0, 1, 2, 3, 20)]
    observations = localizer.observe_all(*loaded(window))
    poses = relative(window[:4], window[3].world_from_camera) + [np.eye(4)]
    estimate = localizer.solve_window(observations, poses)
    alone = localizer.solve_window(observations[-1:], [np.eye(4)])
    assert estimate.accepted and len(estimate.image_inlier_ratios) == 1
    np.testing.assert_array_equal(estimate.world_from_camera, alone.world_from_camera)
    distance, _ = pose_errors(estimate.world_from_camera, window[-1].world_from_camera)
    assert distance < 0.1


def test_earlier_images_do_not_speak_for_a_covered_camera(localizer: Localizer, frames: Sequence[Frame]) -> None:
    window = frames[4:9]
    images, cameras = loaded(window)
    images[-1] = np.zeros_like(images[-1])
    estimate = localizer.localize_window(images, cameras, relative(window, window[-1].world_from_camera))
    assert not estimate.accepted and len(estimate.image_inlier_ratios) == 1
    rig = localizer.localize_rig(images, cameras, relative(window, window[-1].world_from_camera))
    assert rig.accepted and len(rig.image_inlier_ratios) == 5  # one covered camera of several at one time


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda images, cameras, poses: ([], [], []), "No image was given"),
        (lambda images, cameras, poses: (images, cameras, poses[:1]), "Lists of 2, 2, 1 entries were given"),
        (lambda images, cameras, poses: (images[:1], cameras, poses), "Lists of 1, 2, 2 entries were given"),
        (lambda images, cameras, poses: (images, cameras, [2 * poses[0], poses[1]]), "Pose 0 is not a rigid"),
        (lambda images, cameras, poses: (images, cameras, [poses[0], poses[1] * np.nan]), "Pose 1 is not a rigid"),
        (lambda images, cameras, poses: (images, cameras, [poses[0], poses[1][:3]]), "Pose 1 is not a rigid"),
        (
            lambda images, cameras, poses: (images, cameras, [poses[0], np.diag([1.0, 1, -1, 1])]),
            "Pose 1 is not a rigid",
        ),
        (
            lambda images, cameras, poses: (images, cameras, [poses[1], make_pose(np.eye(3), np.ones(3))]),
            "must be the identity",
        ),
    ],
)
def test_lists_that_do_not_fit_are_one_sentence(
    localizer: Localizer, frames: Sequence[Frame], change, words: str
) -> None:
    images, cameras = loaded(frames[:2])
    arguments = change(images, cameras, [make_pose(np.eye(3), np.array([0.1, 0.0, 0.0])), np.eye(4)])
    if "identity" not in words:
        with pytest.raises(InputError, match=words):
            localizer.localize_rig(*arguments)
    with pytest.raises(InputError, match=words):
        localizer.localize_window(*arguments)


def test_a_window_has_newest_images(localizer: Localizer, frames: Sequence[Frame]) -> None:
    observation = localizer.observe(frames[0].load(), frames[0].camera)
    for newest in (0, 2):
        with pytest.raises(InputError, match="A window of 1 images cannot have"):
            localizer.solve_window([observation], [np.eye(4)], newest)
    with pytest.raises(InputError, match="1 images but 2 cameras"):
        localizer.observe_all([frames[0].load()], [frames[0].camera] * 2)
