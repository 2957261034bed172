"""Properties of the whole solve: exactness, robustness, equivariance, determinism, and sentences on bad data."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dimm_ros.config import SolverConfig
from dimm_ros.geometry.camera import Camera
from dimm_ros.geometry.poses import pose_errors
from dimm_ros.solver import solve_pose, solve_rig
from dimm_ros.solver.matches import match_rays
from dimm_ros.solver.rays import exp_so3, moments_of

from .scenes import Scene, transform_rays

seeds = st.integers(0, 2**31 - 1)
property_test = settings(max_examples=40, deadline=None)


@st.composite
def cameras(draw: st.DrawFn) -> Camera:
    """Any central camera with a plausible lens."""
    width, height = draw(st.sampled_from([(640, 480), (848, 480), (1280, 800)]))
    focal = width * draw(st.floats(0.5, 1.2))
    k = [draw(st.floats(-0.05, 0.05)) for _ in range(4)]
    model, distortion = draw(
        st.sampled_from(
            [
                ("plumb_bob", ()),
                ("plumb_bob", (2 * k[0], k[1], k[2] / 50, k[3] / 50, 0.0)),
                ("rational_polynomial", (2 * k[0], k[1], k[2] / 50, k[3] / 50, 0.0, k[1], 0.0, 0.0)),
                ("equidistant", tuple(x / 5 for x in k)),
            ]
        )
    )
    cx, cy = width / 2 + 20 * k[0], height / 2 - 20 * k[1]
    return Camera(width, height, focal, focal * draw(st.floats(0.95, 1.05)), cx, cy, model, distortion)


@property_test
@given(camera=cameras(), seed=seeds, reach=st.floats(0.1, 30.0))
def test_recovers_any_camera_exactly(camera: Camera, seed: int, reach: float) -> None:
    u, v = np.meshgrid(np.linspace(7, camera.width - 7, 16), np.linspace(7, camera.height - 7, 12))
    bearings, invertible = camera.bearings(np.column_stack([u.ravel(), v.ravel()]))
    scene = Scene(seed, bearings=torch.from_numpy(bearings[invertible]), reach=reach)
    solution = solve_pose(scene.bearings, scene.directions, scene.moments)
    assert solution.ok, solution.reason
    distance, angle = scene.errors(solution.world_from_camera)
    assert distance < 1e-6 and angle < 1e-6
    assert solution.rotation_inliers.all() and solution.centre_inliers.all()


@property_test
@given(seed=seeds, refine=st.booleans(), scale=st.floats(0.3, 3.0))
def test_three_rays_suffice_and_length_of_directions_is_free(seed: int, refine: bool, scale: float) -> None:
    spread = torch.tensor([[0.5, 0.0, 1.0], [-0.3, 0.5, 1.0], [-0.3, -0.5, 1.0]], dtype=torch.float64)
    scene = Scene(seed, bearings=spread)
    solution = solve_pose(scene.bearings, scale * scene.directions, scene.moments, config=SolverConfig(refine=refine))
    assert solution.ok, solution.reason
    assert max(scene.errors(solution.world_from_camera)) < 1e-6


@property_test
@given(seed=seeds)
def test_survives_half_gross_outliers(seed: int) -> None:
    scene = Scene(seed, rays=400)
    outliers = scene.add_outliers(0.5)
    solution = solve_pose(scene.bearings, scene.directions, scene.moments)
    assert solution.ok, solution.reason
    assert solution.rotation_inliers[~outliers].all() and solution.centre_inliers[~outliers].all()
    # an outlier may come near by chance and then counts: the error is bounded by its share, not by 1e-6
    agreeing = (solution.rotation_inliers & outliers).any() or (solution.centre_inliers & outliers).any()
    limit = 2e-2 if agreeing else 1e-6
    assert max(scene.errors(solution.world_from_camera)) < limit


@property_test
@given(seed=seeds)
def test_survives_noise_and_half_gross_outliers(seed: int) -> None:
    scene = Scene(seed, rays=768)
    scene.add_noise(math.radians(1.0), 0.03)
    scene.add_outliers(0.5)
    solution = solve_pose(scene.bearings, scene.directions, scene.moments)
    assert solution.ok, solution.reason
    distance, angle = scene.errors(solution.world_from_camera)
    assert distance < 0.03 and math.degrees(angle) < 0.5


@property_test
@given(seed=seeds, share=st.floats(0.0, 0.4))
def test_follows_rotation_and_scale_of_the_world_exactly(seed: int, share: float) -> None:
    scene = Scene(seed)
    scene.add_noise(math.radians(0.7), 0.02)
    scene.add_outliers(share)
    turn, scale = exp_so3(scene.normal(3)), float(scene.normal(1).exp())
    before = solve_pose(scene.bearings, scene.directions, scene.moments)
    scaled = SolverConfig(centre_threshold=scale * SolverConfig().centre_threshold)
    after = solve_pose(scene.bearings, scene.directions @ turn.T, scale * scene.moments @ turn.T, config=scaled)
    pose, moved = before.world_from_camera, after.world_from_camera
    assert torch.allclose(moved[:3, :3], turn @ pose[:3, :3], atol=1e-8)
    assert torch.allclose(moved[:3, 3], scale * turn @ pose[:3, 3], atol=1e-8 * (1 + scale))
    adjoint = torch.block_diag(scale * turn, turn)
    expected = adjoint @ before.covariance @ adjoint.T
    deviations = expected.diagonal().sqrt()
    assert ((after.covariance - expected).abs() < 1e-5 * deviations[:, None] * deviations).all()
    assert torch.equal(after.rotation_inliers, before.rotation_inliers)
    assert torch.equal(after.centre_inliers, before.centre_inliers)


@property_test
@given(seed=seeds)
def test_follows_any_rigid_motion_of_the_world(seed: int) -> None:
    scene = Scene(seed)
    motion = torch.eye(4, dtype=torch.float64)
    motion[:3, :3], motion[:3, 3] = exp_so3(scene.normal(3)), scene.normal(3)
    scene.add_noise(1e-4, 1e-3)
    before = solve_pose(scene.bearings, scene.directions, scene.moments)
    after = solve_pose(scene.bearings, *transform_rays(motion, scene.directions, scene.moments))
    # moving the origin multiplies the direction error (1e-4) by the shift (metres) and spreads it over 200 rays
    distance, angle = pose_errors(after.world_from_camera.numpy(), (motion @ before.world_from_camera).numpy())
    assert distance < 5e-4 and angle < 2e-2
    exact = Scene(seed)
    solution = solve_pose(exact.bearings, *transform_rays(motion, exact.directions, exact.moments))
    exact_pose = torch.eye(4, dtype=torch.float64)
    exact_pose[:3, :3], exact_pose[:3, 3] = exact.rotation, exact.centre
    assert torch.allclose(solution.world_from_camera, motion @ exact_pose, atol=1e-6)


@property_test
@given(seed=seeds, outliers=st.floats(0.0, 0.4))
def test_rig_of_two_cameras(seed: int, outliers: float) -> None:
    rig = Scene(seed, rays=300)  # its pose is the rig's
    cameras, rays, directions, moments = [], [], [], []
    for half in rig.bearings.chunk(2):
        mount = torch.eye(4, dtype=torch.float64)
        mount[:3, :3], mount[:3, 3] = exp_so3(rig.normal(3)), 0.4 * rig.normal(3)
        direction = half @ mount[:3, :3].T @ rig.rotation.T
        cameras.append(mount)
        rays.append(half)
        directions.append(direction)
        moments.append(moments_of(rig.centre + rig.rotation @ mount[:3, 3], direction))
    wrong = int(outliers * 150)
    directions[1][:wrong] = torch.nn.functional.normalize(rig.normal(wrong, 3), dim=1)
    moments[1][:wrong] = 3 * rig.normal(wrong, 3)
    solution = solve_rig(rays, cameras, directions, moments)
    assert solution.ok, solution.reason
    chance = (solution.rotation_inliers | solution.centre_inliers)[150 : 150 + wrong].any()
    assert max(rig.errors(solution.world_from_camera)) < (2e-2 if chance else 1e-6)
    assert (solution.rotation_inliers & solution.centre_inliers)[:150].all()


def test_rig_of_one_centred_camera_is_the_single_camera() -> None:
    scene = Scene(3)
    scene.add_noise(0.01, 0.02)
    single = solve_pose(scene.bearings, scene.directions, scene.moments)
    rig = solve_rig([scene.bearings], [torch.eye(4)], [scene.directions], [scene.moments])
    assert torch.allclose(single.world_from_camera, rig.world_from_camera, atol=1e-10)
    assert torch.allclose(single.covariance, rig.covariance, rtol=1e-6)


def test_predicted_confidence_improves_the_pose() -> None:
    plain, weighed = [], []
    for seed in range(60):
        scene = Scene(seed)
        spread = (0.8 * scene.normal(200)).exp()
        scene.add_noise(0.008 * spread[:, None], 0.02 * spread[:, None])
        for errors, use in ((plain, False), (weighed, True)):
            # a common factor in the predicted scales must not matter
            sigmas = {"direction_sigma": 0.001 * spread, "moment_sigma": 7.0 * spread}
            config = SolverConfig(use_confidence=use)
            solution = solve_pose(scene.bearings, scene.directions, scene.moments, config=config, **sigmas)
            errors.append(scene.errors(solution.world_from_camera))
    plain, weighed = np.sqrt(np.mean(np.square(plain), axis=0)), np.sqrt(np.mean(np.square(weighed), axis=0))
    assert (weighed < 0.9 * plain).all(), (plain, weighed)


def test_refinement_lowers_the_error_when_moments_know_the_rotation_better() -> None:
    errors = {}
    for refine in (False, True):
        config = SolverConfig(refine=refine, rotation_threshold_deg=6.0)
        runs = []
        for seed in range(40):
            scene = Scene(seed, reach=3.0)
            scene.add_noise(math.radians(1.5), 0.01)
            solution = solve_pose(scene.bearings, scene.directions, scene.moments, config=config)
            runs.append(scene.errors(solution.world_from_camera))
        errors[refine] = np.mean(runs, axis=0)
    assert (errors[True] < 0.8 * errors[False]).all(), errors


def test_same_seed_same_pose_and_other_seed_other_pairs() -> None:
    scene = Scene(5)
    scene.add_noise(0.02, 0.05)
    scene.add_outliers(0.4)
    solutions = [solve_pose(scene.bearings, scene.directions, scene.moments) for _ in range(2)]
    assert torch.equal(solutions[0].world_from_camera, solutions[1].world_from_camera)
    assert torch.equal(solutions[0].covariance, solutions[1].covariance)
    bare = [SolverConfig(hypotheses=4, local_steps=0, refine=False, seed=seed) for seed in (0, 1)]
    one, other = (solve_pose(scene.bearings, scene.directions, scene.moments, config=config) for config in bare)
    assert not torch.equal(one.world_from_camera, other.world_from_camera)


def test_residuals_and_inliers_are_those_of_the_pose() -> None:
    scene = Scene(8)
    scene.add_noise(0.01, 0.02)
    outliers = scene.add_outliers(0.3)
    solution = solve_pose(scene.bearings.float(), scene.directions.float(), scene.moments.float())
    assert solution.world_from_camera.dtype == torch.float64
    pose = solution.world_from_camera.numpy()
    turned = scene.bearings.numpy() @ pose[:3, :3].T
    angle = np.arccos(np.clip((turned * scene.directions.numpy()).sum(axis=1), -1, 1))
    distance = np.linalg.norm(np.cross(pose[:3, 3], turned) - scene.moments.numpy(), axis=1)
    assert np.allclose(solution.angle_residual, angle, atol=1e-5)
    assert np.allclose(solution.centre_residual, distance, atol=1e-5)
    assert np.array_equal(solution.rotation_inliers, angle < math.radians(3.0))
    assert np.array_equal(solution.centre_inliers, distance < 0.1)
    assert not (solution.rotation_inliers & solution.centre_inliers)[outliers].any()
    assert np.linalg.eigvalsh(solution.covariance.numpy()).min() > 0


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_rays_that_are_not_finite_are_dropped(share: float) -> None:
    scene = Scene(11)
    bad = torch.rand(200, generator=scene.generator) < share
    for start, tensor in enumerate((scene.bearings, scene.directions, scene.moments)):
        rows = bad.nonzero()[start::3, 0]
        tensor[rows[::2]], tensor[rows[1::2], 1] = torch.nan, torch.inf
    scene.directions[bad.nonzero()[0]] = 0.0
    sigma = torch.ones(200)
    good = (~bad).nonzero()[0]
    sigma[good] = torch.nan
    solution = solve_pose(
        scene.bearings, scene.directions, scene.moments, direction_sigma=sigma, moment_sigma=torch.ones(200)
    )
    assert solution.ok, solution.reason
    assert max(scene.errors(solution.world_from_camera)) < 1e-6
    bad[good] = True
    assert torch.equal(solution.rotation_inliers, ~bad) and torch.equal(solution.centre_residual.isnan(), bad)


@pytest.mark.parametrize("reach", [0.01, 1.0])
def test_dropped_rays_have_no_influence(reach: float) -> None:
    scene = Scene(12, reach=reach)
    # near the world's own pose, where the numbers that stand in for dropped rays would agree
    scene.rotation = exp_so3(0.02 * scene.normal(3))
    scene.directions = scene.bearings @ scene.rotation.T
    scene.moments = moments_of(scene.centre, scene.directions)
    scene.add_noise(0.01, 0.02)
    keep = torch.arange(200) % 3 != 1
    kept = solve_pose(scene.bearings[keep], scene.directions[keep], scene.moments[keep])
    scene.moments[~keep, 1], scene.directions[1] = torch.inf, torch.nan
    solution = solve_pose(scene.bearings, scene.directions, scene.moments)
    assert torch.allclose(solution.world_from_camera, kept.world_from_camera, atol=1e-12)
    assert torch.allclose(solution.covariance, kept.covariance, rtol=1e-9)


@pytest.mark.parametrize("size", [1e8, 1e20, 1e100, 1e160, 1e308])
def test_one_absurd_moment_harms_no_other_ray(size: float) -> None:
    scene = Scene(14)
    scene.moments[7] = size
    solution = solve_pose(scene.bearings, scene.directions, scene.moments)
    assert solution.ok and max(scene.errors(solution.world_from_camera)) < 1e-6
    assert solution.centre_inliers.sum() == 199 and not solution.centre_inliers[7]


def test_opposite_rays_are_no_pair() -> None:
    # as on a fisheye's rim: nearly all pairs lie on one line, which leaves the turn about it open
    for seed in range(20):
        bearings = Scene(seed, rays=200).bearings
        bearings[:190] = bearings[0] * torch.tensor([1.0, -1.0]).repeat(95)[:, None]
        scene = Scene(seed, bearings=bearings)
        few = SolverConfig(hypotheses=4, local_steps=0, refine=False, seed=seed)
        solution = solve_pose(scene.bearings, scene.directions, scene.moments, config=few)
        assert solution.ok and max(scene.errors(solution.world_from_camera)) < 1e-6


def _parallel(scene: Scene) -> None:
    scene.bearings[:] = scene.bearings[0]
    scene.directions[:] = scene.directions[0]


def _opposite(scene: Scene) -> None:
    _parallel(scene)
    scene.bearings[::2] *= -1
    scene.directions[::2] *= -1


def _all_nan(scene: Scene) -> None:
    scene.directions[:] = torch.nan


def _two_finite(scene: Scene) -> None:
    scene.moments[2:] = torch.nan


def _collapsed_map(scene: Scene) -> None:
    scene.directions[:] = scene.directions[0]


def _scattered_moments(scene: Scene) -> None:
    scene.moments[:] = 1e3 * scene.normal(200, 3)


def _huge_moments(scene: Scene) -> None:
    scene.moments[:] = 1e200


def _large_moments(scene: Scene) -> None:
    scene.moments[:] = 1e100 * scene.normal(200, 3)


@pytest.mark.parametrize(
    "spoil, words",
    [
        (_parallel, "parallel"),
        (_opposite, "parallel"),
        (_all_nan, "Only 0 of 200 rays are finite"),
        (_two_finite, "Only 2 of 200 rays are finite"),
        (_collapsed_map, "No two of the 200 rays"),
        (_scattered_moments, "rays meet in a point within 0.1 m"),
        (_huge_moments, "Only 0 of 200"),
        (_large_moments, "rays meet in a point"),
    ],
)
def test_degenerate_rays_give_a_sentence(spoil, words: str) -> None:
    scene = Scene(13)
    spoil(scene)
    solution = solve_pose(scene.bearings, scene.directions, scene.moments)
    assert not solution.ok
    assert words in solution.reason and solution.reason.endswith(".")
    assert torch.isfinite(solution.world_from_camera).all() and torch.isfinite(solution.covariance).all()
    assert solution.covariance.diagonal().min() > 0


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_rays_give_a_sentence(count: int) -> None:
    scene = Scene(17, rays=count)
    solution = solve_pose(scene.bearings, scene.directions, scene.moments)
    assert not solution.ok and f"{count} rays" in solution.reason
    assert solution.rotation_inliers.shape == (count,)


@property_test
@given(seed=seeds, count=st.integers(3, 40))
def test_rays_of_nowhere_never_raise(seed: int, count: int) -> None:
    scene = Scene(seed, rays=count)
    solution = solve_pose(scene.bearings, scene.normal(count, 3), 50 * scene.normal(count, 3))
    assert torch.isfinite(solution.world_from_camera).all() and torch.isfinite(solution.covariance).all()
    assert solution.ok == (not solution.reason)


def test_leaves_the_number_of_threads_as_it_was() -> None:
    scene, threads = Scene(1), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        solve_pose(scene.bearings, scene.directions, scene.moments)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_other_threads_keep_their_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """While one solves, others that have not used torch before get the process's number, in a solve and outside."""
    scene, threads = Scene(1), torch.get_num_threads()
    numbers: dict[str, int] = {}

    def solve(name: str) -> None:
        solve_pose(scene.bearings, scene.directions, scene.moments)
        numbers[name] = torch.get_num_threads()

    def within(*arguments: object) -> None:
        """Called in the middle of the outer solve."""
        numbers["solver's"] = torch.get_num_threads()
        monkeypatch.setattr("dimm_ros.solver.pose.match_rays", match_rays)
        for target in (lambda: numbers.update({"new": torch.get_num_threads()}), lambda: solve("new, solving")):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
        return match_rays(*arguments)

    try:
        torch.set_num_threads(2)
        monkeypatch.setattr("dimm_ros.solver.pose.match_rays", within)
        solve("outer")
    finally:
        torch.set_num_threads(threads)
    assert numbers == {"solver's": 1, "new": 2, "new, solving": 2, "outer": 2}


def test_wrong_shapes_are_an_error_of_the_caller() -> None:
    scene = Scene(19)
    with pytest.raises(ValueError, match=r"moments must have shape \(200, 3\)"):
        solve_pose(scene.bearings, scene.directions, scene.moments[:10])
    with pytest.raises(ValueError, match="direction_sigma"):
        solve_pose(scene.bearings, scene.directions, scene.moments, direction_sigma=torch.ones(200, 1))
    with pytest.raises(ValueError, match="each of its cameras"):
        solve_rig([scene.bearings], [], [scene.directions], [scene.moments])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_runs_on_the_device_of_its_rays() -> None:
    scene = Scene(23)
    scene.add_noise(0.01, 0.02)
    scene.add_outliers(0.3)
    on_cpu = solve_pose(scene.bearings, scene.directions, scene.moments)
    on_gpu = solve_pose(scene.bearings.cuda(), scene.directions.cuda(), scene.moments.cuda())
    assert on_gpu.world_from_camera.is_cuda
    assert torch.allclose(on_gpu.world_from_camera.cpu(), on_cpu.world_from_camera, atol=1e-9)
